import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { draw } from '../../cli/top/draw.ts'
import { keysIn, keysOfRest } from '../../cli/top/keys.ts'
import { firstState, type Effect, type Happening, type Seen, type TopState } from '../../cli/top/state.ts'
import { update } from '../../cli/top/update.ts'
import { widthOf } from '../../cli/width.ts'
import type { DeadLetter, GroupStats, StreamStats } from '../../src/index.ts'
import { STREAMS_KEY } from '../../src/redis/keys.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { cliMain } from '../helpers/cli-main.ts'
import { bury, DEAD, makeGroup, redelivered } from '../helpers/dead.ts'
import { eventually } from '../helpers/eventually.ts'
import { startServer, withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const SIZE = { columns: 80, rows: 24 }

function groupNamed(group: string, more: object = {}): GroupStats {
  const counts = { lag: 0, lagSeconds: 0, pending: 0, handedBack: 0, oldestPendingSeconds: 0, dead: 0, redelivery: 0 }
  const waiting = { scheduled: 0, overdueSeconds: 0, setAside: 0 }
  const workers = {
    workers: 0,
    slots: 0,
    running: 0,
    perSecond: 0,
    lastSeenMs: null,
    abandoned: false,
    pins: null,
    paused: null,
  }
  const lastHour = { completed: 0, dead: 0, late: 0, retried: 0, cancelled: 0, skipped: 0 }
  return { group, ...counts, ...waiting, ...workers, lastHour, ...more }
}

function streamNamed(stream: string, groups: readonly GroupStats[] = [], more: object = {}): StreamStats {
  const waiting = { scheduled: 0, overdueSeconds: 0, setAside: 0 }
  return { stream, entries: 5, oldestEntryMs: 1, ...waiting, paused: null, groups, ...more }
}

const seenStreams = (...names: string[]): Seen => ({ kind: 'streams', streams: names.map((name) => streamNamed(name)) })

function letter(deadId: string, more: Partial<DeadLetter> = {}): DeadLetter {
  const of = { id: '1795245552380-0', job: 'mail', reason: 'attempts', error: 'Error', message: 'no', attempts: 3 }
  const rest = { totalAttempts: 3, deliveries: 1, worker: 'w', origin: '1-0', source: 'stream', firstFailedMs: 1 }
  return { deadId, ...of, ...rest, deadMs: 1, publishedMs: 1, ...more }
}

/** A state after all of these, and what was to be done at the last. */
function after(
  state: TopState,
  ...happenings: (Happening | string)[]
): { state: TopState; effects: readonly Effect[] } {
  let effects: readonly Effect[] = []
  for (const happening of happenings) {
    const next = typeof happening === 'string' ? ({ kind: 'key', key: happening, page: 10 } as const) : happening
    ;({ state, effects } = update(state, next))
  }
  return { state, effects }
}

/** The look at what the state shows has come back. */
function looked(state: TopState, seen: Seen): TopState {
  return update(state, { kind: 'seen', view: state.view, seen, atMs: 1_795_245_552_380 }).state
}

const inStreams = (...names: string[]) => looked(firstState(undefined), seenStreams(...names))
const inGroups = (...groups: GroupStats[]) =>
  looked(firstState('orders'), { kind: 'groups', stats: streamNamed('orders', groups), history: undefined })
function inDead(...letters: DeadLetter[]): TopState {
  const { state } = after(inGroups(groupNamed('main', { dead: letters.length })), 'enter', '2')
  const stats = streamNamed('orders', [groupNamed('main')])
  const page = { letters, next: null, total: letters.length, unknownIds: [] }
  return looked(state, { kind: 'jobs', stats, of: { tab: 'dead', page } })
}

describe('the keys of a terminal', () => {
  test('are told apart, also where several come at once', () => {
    expect(keysIn('\x1b[A\x1bOBj\r\tq\x03')).toEqual({
      keys: ['up', 'down', 'j', 'enter', 'tab', 'q', 'ctrl-c'],
      rest: '',
    })
    expect(keysIn('\x1b[5~\x1b[H\x1b[15~é')).toEqual({ keys: ['pageup', 'home', 'other', 'é'], rest: '' })
  })

  test('wait for their end where only their beginning came, which may be Esc', () => {
    expect(keysIn('j\x1b')).toEqual({ keys: ['j'], rest: '\x1b' })
    expect(keysIn('\x1b' + '[C')).toEqual({ keys: ['right'], rest: '' })
    expect(keysOfRest('\x1b')).toEqual(['esc'])
  })
})

describe('moving in top', () => {
  test('stays on the row that it is on, wherever that goes, and at its place when the row is gone', () => {
    const on = (state: TopState) => [state.cursor.at, state.cursor.key]
    const { state } = after(inStreams('a', 'b', 'c'), 'j')
    expect(on(state)).toEqual([1, 'b'])
    expect(on(looked(state, seenStreams('0', 'a', 'b')))).toEqual([2, 'b'])
    expect(on(looked(state, seenStreams('a', 'c')))).toEqual([1, 'c'])
    expect(on(looked(state, seenStreams()))).toEqual([0, 'b'])
    expect(on(after(state, 'down', 'down', 'down').state)).toEqual([2, 'c'])
    expect(on(after(state, 'G', 'pageup').state)).toEqual([0, 'a'])
  })

  test('opens groups and jobs, changes lists, and leads back to where it was', () => {
    const { state, effects } = after(inStreams('a', 'orders'), 'j', 'enter')
    expect([state.view, effects]).toEqual([{ kind: 'groups', stream: 'orders' }, [{ kind: 'look' }]])
    const stats = streamNamed('orders', [groupNamed('main')])
    const groups = looked(state, { kind: 'groups', stats, history: undefined })
    const jobs = after(groups, 'right')
    expect(jobs.state.view).toEqual({ kind: 'jobs', stream: 'orders', group: 'main', tab: 'pending' })
    expect(after(jobs.state, 'tab').state.view).toMatchObject({ tab: 'dead' })
    expect(after(jobs.state, '3', 'tab').state.view).toMatchObject({ tab: 'pending' })
    const back = after(jobs.state, '3', 'esc', 'h').state
    expect([back.view, back.cursor]).toEqual([{ kind: 'streams' }, { at: 1, key: 'orders' }])
    expect(after(back, 'esc').state.message).toBe('q quits')
  })

  test('takes nothing for what it shows that was seen of another view', () => {
    const { state } = after(inStreams('a'), 'enter')
    const late: Happening = { kind: 'seen', view: { kind: 'streams' }, seen: seenStreams('a'), atMs: 1 }
    expect(after(state, late).state.seen).toBeUndefined()
  })

  test('quits with q and Ctrl-C, and with nothing else', () => {
    for (const key of ['q', 'ctrl-c']) expect(after(inStreams('a'), key).effects).toEqual([{ kind: 'quit' }])
    expect(after(inStreams('a'), '?', 'q').effects).toEqual([{ kind: 'quit' }])
    expect(after(inStreams('a'), 'p', 'q').effects).toEqual([])
    expect(after(inStreams('a'), 'p', 'ctrl-c').effects).toEqual([{ kind: 'quit' }])
  })
})

describe('changing something in top', () => {
  test('asks first, and does it at y and at nothing else', () => {
    const asked = after(inStreams('a', 'b'), 'j', 'p')
    expect([asked.state.question?.text, asked.effects]).toEqual(['pause stream b?', []])
    expect(after(asked.state, 'y').effects).toEqual([{ kind: 'pause', target: { stream: 'b', group: undefined } }])
    for (const key of ['n', 'esc', 'enter', 'p', 'r']) {
      const refused = after(asked.state, key)
      expect([refused.effects, refused.state.question, refused.state.message]).toEqual([
        [],
        undefined,
        'nothing was changed',
      ])
    }
  })

  test('resumes what is paused, a group as well as a stream', () => {
    const paused = inGroups(groupNamed('main', { paused: { sinceMs: 1 } }))
    const asked = after(paused, 'p')
    expect(asked.state.question?.text).toBe('resume group main of orders?')
    expect(after(asked.state, 'y').effects).toEqual([{ kind: 'resume', target: { stream: 'orders', group: 'main' } }])
    const shown = draw(paused, SIZE, {})
    expect(shown.map(({ text }) => text).join('\n')).toContain('main (paused)')
  })

  test('counts before it asks whether to redrive, and redrives no more than was counted', () => {
    const asked = { stream: 'orders', group: 'main', deadId: '2-0' }
    const planning = after(inDead(letter('3-0'), letter('2-0')), 'j', 'r')
    expect(planning.effects).toEqual([{ kind: 'plan', asked }])
    expect(planning.state.isBusy).toBe(true)
    expect(after(planning.state, 'r').effects).toEqual([])
    expect(after(planning.state, 'esc').effects).toEqual([{ kind: 'stop' }])
    const planned = after(planning.state, { kind: 'planned', asked, count: 1, untilDeadId: '3-0' })
    expect(planned.state.question?.text).toBe('redrive 1 dead letter of group main of orders?')
    expect(after(planned.state, 'y').effects).toEqual([{ kind: 'redrive', asked, untilDeadId: '3-0' }])
    const none = after(planning.state, { kind: 'planned', asked, count: 0, untilDeadId: null })
    expect([none.state.question, none.state.message]).toEqual([undefined, 'nothing to redrive of group main of orders'])
  })

  test('redrives all of a group with R, and from the list of groups', () => {
    const all = { kind: 'plan', asked: { stream: 'orders', group: 'main', deadId: undefined } }
    expect(after(inDead(letter('3-0')), 'R').effects).toEqual([all])
    expect(after(inGroups(groupNamed('main')), 'r').effects).toEqual([all])
    expect(after(inStreams('orders'), 'r').effects).toEqual([])
    expect(after(inStreams('orders'), 'r').state.message).toContain('open a stream first')
  })
})

describe('the screen of top', () => {
  const many = inGroups(...Array.from({ length: 60 }, (_, n) => groupNamed(`group-${n}-日本`, { lag: 2_000_000 })))
  const hostile = inDead(letter('1-0', { job: '\x1b[2J', message: 'a\nb\x1b]0;x\x07\u202e日本語 '.repeat(40) }))
  const states: [string, TopState][] = [
    ['streams', inStreams('a', 'b'.repeat(200))],
    ['many groups', after(many, 'G').state],
    ['hostile dead letters', hostile],
    ['nothing yet', firstState(undefined)],
    ['no streams', inStreams()],
    ['help', after(inStreams('a'), '?').state],
    ['Redis away', after(inStreams('a'), { kind: 'trouble', text: 'cannot reach Redis\x1b[2J '.repeat(20) }).state],
    ['a question', after(inStreams('s'.repeat(200)), 'p').state],
  ]
  const sizes = [
    [80, 24],
    [140, 50],
    [40, 10],
    [10, 3],
    [1, 1],
  ]

  test.each(states)('is filled exactly, and obeys nothing, whatever its size: %s', (_what, state) => {
    for (const [columns = 0, rows = 0] of sizes) {
      const lines = draw(state, { columns, rows }, { LANG: 'C.UTF-8' })
      expect([columns, lines.length]).toEqual([columns, rows])
      for (const { text } of lines) {
        expect(widthOf(text)).toBeLessThanOrEqual(columns)
        expect(text).not.toMatch(/[\p{Cc}\p{Cf}]/u)
      }
    }
  })

  test('shows the row that the cursor is on, marked without a colour too', () => {
    const lines = draw(after(many, 'G').state, SIZE, {})
    expect(lines.filter(({ style }) => style === 'inverse').map(({ text }) => text)).toEqual([
      expect.stringMatching(/^> group-59-日本 .* 2\.0M /),
    ])
  })

  test('keeps what was seen while Redis is away, with a banner', () => {
    const lines = draw(
      after(inStreams('orders'), { kind: 'trouble', text: 'lost Redis; trying again' }).state,
      SIZE,
      {},
    )
    expect(lines[1]?.text).toBe('lost Redis; trying again')
    expect(lines.some(({ text }) => text.startsWith('> orders'))).toBe(true)
  })

  test('adds up the groups of a stream, and takes a lag that is not known for none that is', () => {
    const groups = [
      groupNamed('a', { lag: 3, pending: 2, dead: 1 }),
      groupNamed('b', { lag: 4, pending: 5, lagSeconds: 90 }),
    ]
    const seen: Seen = {
      kind: 'streams',
      streams: [streamNamed('known', groups), streamNamed('unknown', [groupNamed('a', { lag: null }), ...groups])],
    }
    const lines = draw(looked(firstState(undefined), seen), SIZE, {}).map(({ text }) => text.trim().split(/ {2,}/))
    expect(lines.slice(3, 5)).toEqual([
      ['> known', '5', '7', '90s', '7', '1', '0', '0.0'],
      ['unknown', '5', '?', '90s', '7', '1', '0', '0.0'],
    ])
  })
})

/** util-linux; what BSD calls so takes other arguments. */
const hasTerminals = spawnSync('script', ['-qec', 'true', '/dev/null']).status === 0

/** The command in a pseudo terminal of its own, by way of script(1). */
function inTerminal(args: readonly string[], redis: string, { columns = 80, rows = 24 } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'millrace-tty-'))
  onEnd(() => rmSync(dir, { recursive: true, force: true }))
  const noted = (name: string) => readFileSync(join(dir, name), 'utf8').trim()
  const program = `sh -c 'echo $$ > ${dir}/pid; exec ${process.execPath} ${cliMain(args)} ${args.join(' ')}'`
  const steps = [
    `tty > ${dir}/tty; stty cols ${columns} rows ${rows}; stty -g > ${dir}/before`,
    `${program}; echo $? > ${dir}/code; stty -g > ${dir}/after`,
  ]
  // What the tests are run with may force colours.
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'FORCE_COLOR'))
  const env = { ...inherited, MILLRACE_REDIS_URL: redis, TERM: 'xterm', LC_ALL: 'C.UTF-8', NO_COLOR: '1' }
  const child = spawn('script', ['-qfec', steps.join('\n'), '/dev/null'], { env, stdio: ['pipe', 'pipe', 'inherit'] })
  onEnd(() => void child.kill('SIGKILL'))
  let written = ''
  child.stdout.on('data', (bytes) => (written += String(bytes)))
  const ended = new Promise((resolve) => child.once('exit', resolve))
  return {
    noted,
    ended,
    press: (keys: string) => void child.stdin.write(keys),
    resize: (width: number, height: number) =>
      void spawnSync('stty', ['-F', noted('tty'), 'cols', String(width), 'rows', String(height)]),
    kill: (signal: NodeJS.Signals) => process.kill(Number(noted('pid')), signal),
    get written() {
      return written
    },
    /** The lines of the last whole frame. */
    get screen() {
      const frames = written.split('\x1b[H').filter((frame) => frame.includes('\x1b[J'))
      return (
        (frames.at(-1) ?? '')
          .split('\x1b[J')[0]
          ?.split(/\r+\n/)
          .map((line) => line.replaceAll('\x1b[K', '')) ?? []
      )
    },
  }
}

const ENTERED = '\x1b[?1049h\x1b[?25l'
const LEFT = '\x1b[?25h\x1b[?1049l'

describe.skipIf(!hasTerminals)('millrace top on a terminal', () => {
  const redis = withRedis()

  async function arrange(): Promise<void> {
    await makeGroup(redis.client)
    await redis.client.xadd('orders', '*', 'job', 'mail', 'data', '1')
    await redis.client.sadd(STREAMS_KEY, 'orders')
  }

  async function expectRestored(top: ReturnType<typeof inTerminal>): Promise<void> {
    await top.ended
    expect(top.written).toContain(ENTERED)
    expect(top.written.trimEnd().endsWith(LEFT)).toBe(true)
    expect(top.noted('after')).toBe(top.noted('before'))
  }

  test('draws, follows its size, and leaves the terminal as it was when it quits', async () => {
    await arrange()
    const top = inTerminal(['top'], redis.url)
    await eventually(() => expect(top.screen.some((line) => line.startsWith('> orders'))).toBe(true))
    expect(top.screen).toHaveLength(24)
    top.resize(100, 12)
    await eventually(() => expect([top.screen.length, top.screen[0]?.length]).toEqual([12, 100]))
    top.press('\x1b[C')
    await eventually(() => expect(top.screen.some((line) => line.startsWith('> main'))).toBe(true))
    top.press('q')
    await expectRestored(top)
    expect(top.noted('code')).toBe('0')
  })

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('leaves the terminal as it was at %s', async (signal) => {
    await arrange()
    const top = inTerminal(['top'], redis.url)
    await eventually(() => expect(top.screen.some((line) => line.startsWith('> orders'))).toBe(true))
    top.kill(signal)
    await expectRestored(top)
  })

  test('keeps trying while Redis is away, and quits at once also then', async () => {
    const server = await startServer()
    const top = inTerminal(['top'], server.url)
    await eventually(() => expect(top.screen.join()).toContain('no streams yet'))
    await server.kill()
    await eventually(() => expect(top.screen[1]).toMatch(/^trying again: (lost|cannot reach) Redis/))
    await server.restart()
    await eventually(() => expect(top.screen[1]).toBe('0 streams'))
    await server.kill()
    top.press('\x03')
    await expectRestored(top)
  })

  test('pauses and resumes the group under the cursor when it is told to', async () => {
    await arrange()
    const top = inTerminal(['top', 'orders'], redis.url)
    await eventually(() => expect(top.screen.some((line) => line.startsWith('> main '))).toBe(true))
    top.press('py')
    await eventually(() => expect(top.screen.some((line) => line.startsWith('> main (paused)'))).toBe(true))
    expect(top.screen.at(-1)).toContain('paused group main of orders; what runs finishes')
    top.press('p')
    await eventually(() => expect(top.screen.at(-1)).toContain('resume group main of orders? y/n'))
    top.press('y')
    await eventually(() => expect(top.screen.at(-1)).toContain('resumed group main of orders'))
    await eventually(() => expect(top.screen.join()).not.toContain('(paused)'))
    top.press('q')
    await expectRestored(top)
  })

  test('redrives the dead letter under the cursor when it is told to', async () => {
    await arrange()
    await bury(redis.client, { id: '1795245552380-0' })
    const top = inTerminal(['top', 'orders'], redis.url)
    await eventually(() => expect(top.screen.some((line) => line.startsWith('> main'))).toBe(true))
    top.press('\r2')
    await eventually(() => expect(top.screen.some((line) => line.startsWith('> 1795245552380-0'))).toBe(true))
    top.press('r')
    await eventually(() => expect(top.screen.at(-1)).toContain('redrive 1 dead letter of group main of orders? y/n'))
    expect(await redis.client.xlen(DEAD)).toBe(1)
    top.press('y')
    await eventually(async () =>
      expect((await redelivered(redis.client)).map(({ fields }) => fields['id'])).toEqual(['1795245552380-0']),
    )
    top.press('q')
    await expectRestored(top)
  })
})

describe('millrace top without a terminal', () => {
  const redis = withRedis()

  test('is a usage error that names what works there', async () => {
    const { code, stdout, stderr } = await millrace(['top'], { redis: redis.url })
    expect({ code, stdout, stderr }).toEqual({
      code: 2,
      stdout: '',
      stderr: 'error: top needs a terminal; without one use: millrace stats --watch\n',
    })
    expect((await millrace(['top', '--help'])).stdout.match(/^ {2}\$ millrace top/gm)?.length).toBeGreaterThanOrEqual(2)
    expect(await millrace(['top', '--every', '10ms'], { redis: redis.url })).toMatchObject({ code: 2 })
  })
})
