import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { isRunning, startProgram, type Program } from '../helpers/program.ts'
import { withRedis } from '../helpers/redis.ts'

const redis = withRedis()
const FILES = 300

let files = ''
let temporary = ''
beforeEach(() => {
  files = mkdtempSync(join(tmpdir(), 'millrace-files-'))
  temporary = mkdtempSync(join(tmpdir(), 'millrace-tmp-'))
  onEnd(() => [files, temporary].forEach((folder) => rmSync(folder, { recursive: true, force: true })))
})

/** Small files in nested folders, a large one, an empty one, odd names, and links that must not be followed. */
function makeFiles(): void {
  for (let at = 0; at < FILES - 3; at++) {
    const folder = join(files, `folder ${at % 7}`, `${at % 3}`)
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, `file-${at}.txt`), `content ${at}\n`.repeat(at))
  }
  writeFileSync(join(files, 'large'), Buffer.alloc(3 * 1024 * 1024, 'millrace'))
  writeFileSync(join(files, 'empty'), '')
  writeFileSync(join(files, 'ünïcode\n"quoted"'), 'odd')
  symlinkSync(files, join(files, 'loop'))
  symlinkSync(join(files, 'large'), join(files, 'link'))
}

const demo = (...args: string[]): Program => startProgram(['demo', ...args], { env: { TMPDIR: temporary } })

const pidsOf = (program: Program) =>
  program.stderr.map((line) => /worker (\d+) ready/.exec(line)?.[1]).filter((pid) => pid !== undefined)

/** Whether somebody listens on the port of the demo's own Redis. */
async function serverAnswers(program: Program): Promise<boolean> {
  const [, port] = await program.said(/private, port (\d+)/)
  const socket = connect(Number(port), '127.0.0.1')
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  }).then((answers) => (socket.destroy(), answers === true))
}

async function expectNothingLeft(program: Program): Promise<void> {
  await program.closed
  await eventually(async () => {
    expect(pidsOf(program).filter((pid) => isRunning(Number(pid)))).toEqual([])
    expect(await serverAnswers(program)).toBe(false)
    expect(readdirSync(temporary)).toEqual([])
  })
}

describe('millrace demo', () => {
  test('kills a worker that runs jobs, loses none of them, and leaves nothing behind', async () => {
    makeFiles()
    const program = demo(files)
    expect(await program.exited).toBe(0)
    await program.closed
    const table = program.stdout.join('\n')
    expect(table).toMatch(new RegExp(`\\n  files +${FILES} `))
    expect(table).toMatch(new RegExp(`\\n  verified +${FILES} `))
    expect(table).toMatch(/\n {2}lost +0 /)
    expect(table).toMatch(/\n {2}recovered +[1-9]\d* /)
    expect(table).toMatch(/\n {2}recovery +\d\.\d s /)
    expect(program.stdout.at(-1)).toBe('  Nothing was lost.')
    await program.said(/worker \d+ killed with SIGKILL while it ran [1-9]\d* jobs?/)
    await program.said(/worker \d+ ready in its place/)
    await program.said(/\d+ of 300 done {3}lag \d+ {3}pending \d+ {3}recovered \d+/)
    await expectNothingLeft(program)
  })

  test('needs one file only, and prints one JSON document if asked', async () => {
    writeFileSync(join(files, 'only'), 'one')
    const program = demo(files, '--json', '--processes', '1')
    expect(await program.exited).toBe(0)
    await program.closed
    expect(program.stdout).toHaveLength(1)
    expect(JSON.parse(program.stdout[0] ?? '')).toMatchObject({
      schemaVersion: 1,
      files: 1,
      fates: { verified: 1, lost: 0, different: 0 },
      recovered: 1,
      recoveredRunning: 1,
      faults: [],
    })
    await expectNothingLeft(program)
  })

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('ends with its exit code at %s, and leaves nothing behind', async (signal, code) => {
    makeFiles()
    const program = demo(files)
    await program.said(/killed with SIGKILL/)
    program.signalGroup(signal)
    expect(await program.exited).toBe(code)
    await expectNothingLeft(program)
    expect(program.stdout).toEqual([])
  })

  test('leaves no process behind when it is killed itself', async () => {
    makeFiles()
    const program = demo(files)
    await program.said(/killed with SIGKILL/)
    program.signal('SIGKILL')
    await expectNothingLeft(program)
  })

  test('works in a Redis that it is given, under keys of its own, which it removes', async () => {
    makeFiles()
    await redis.client.set('mine', 'kept')
    const program = demo(files, '--redis', redis.url, '--json')
    expect(await program.exited).toBe(0)
    await program.closed
    const left = await redis.client.keys('*')
    // What a producer leaves ends by itself.
    const [producer] = left.filter((key) => key.includes(':producer:'))
    expect(await redis.client.pttl(producer ?? '')).toBeGreaterThan(0)
    expect(left.filter((key) => key !== producer && key !== 'millrace:streams')).toEqual(['mine'])
    expect(await redis.client.smembers('millrace:streams')).toEqual([])
    expect(readdirSync(temporary)).toEqual([])
  })

  test.each([
    [['/no/such/folder'], 2, 'expected the folder /no/such/folder to be a folder that exists'],
    [['--processes', '0'], 2, 'expected `--processes` to be a positive integer up to 64, got 0'],
    [['--redis', 'redis://127.0.0.1:1'], 3, 'cannot reach Redis at 127.0.0.1:1'],
  ])('says in one line what is wrong: %j', async (args, code, message) => {
    const program = demo(...args)
    expect(await program.exited).toBe(code)
    await program.closed
    expect(program.stderr).toEqual([expect.stringContaining(message)])
    expect(program.stdout).toEqual([])
  })

  test('says that a folder without files is none to show anything with', async () => {
    const program = demo(files)
    expect(await program.exited).toBe(2)
    await program.closed
    expect(program.stderr).toEqual([expect.stringContaining('expected a folder with files in it')])
    expect(readdirSync(temporary)).toEqual([])
  })
})
