import { describe, expect, test } from 'vitest'
import { indexKey, redeliveryKey } from '../../src/redis/keys.ts'
import { copyReplay, createReplay, holdHistory, noteReplayIds, turnReplay } from '../../src/redis/scripts/replay.ts'
import type { Script } from '../../src/redis/scripts/script.ts'
import { millrace } from '../cli/run.ts'
import { waitFor } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { startProgram } from '../helpers/program.ts'
import { startProxy, type Match } from '../helpers/proxy.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'
import { copies, holds, history, originals } from '../helpers/replays.ts'
import { tally } from '../helpers/workers.ts'

/** Replays that are killed, run twice at once, or do not hear what became of a step: each match is copied exactly once. */

const redis = withRedis()
const RATE = 2000
/** What such a rate has one step copy. */
const STEP = RATE / 10

const MOMENTS = ['before', 'after'] as const
/** Whether the process is killed before a script reaches Redis or after it ran and before the answer is heard, at its nth call. */
interface Point {
  readonly script: Script
  readonly moment: (typeof MOMENTS)[number]
  readonly n: number
}

const calls = (script: Script, n = 1): Match => {
  let seen = 0
  return ([name, sha]) => name === 'evalsha' && sha === script.sha && ++seen >= n
}

async function killAt(args: readonly string[], { script, moment, n }: Point): Promise<void> {
  // A server that does not know the script yet is asked twice, the second time by its text.
  await redis.client.script('LOAD', script.lua)
  const proxy = await startProxy(redis.url)
  const match = calls(script, n)
  const happened = moment === 'before' ? proxy.cutBefore(match) : proxy.swallowReplyTo(match)
  const program = startProgram(args, { env: { MILLRACE_REDIS_URL: proxy.url } })
  const end = await Promise.race([happened.then(() => 'killed' as const), program.exited])
  program.signal('SIGKILL')
  await program.exited
  await proxy.stop()
  expect([script.name, end, program.stderr]).toEqual([script.name, 'killed', expect.anything()])
}

const run = (...args: string[]) => millrace(args, { redis: redis.url })

async function arrange(count: number): Promise<string[]> {
  await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
  return history(redis.client, count)
}

async function idOfReplay(): Promise<string> {
  const [replay] = await newInspector(redis.url).replays.list('orders')
  return replay?.id ?? ''
}

async function expectEachOnce(ids: readonly string[]): Promise<void> {
  expect(await originals(redis.client)).toEqual(ids)
  const made = (await copies(redis.client)).map(({ fields }) => fields['id'] ?? '')
  expect(new Set(made).size).toBe(ids.length)
  expect(Object.keys(await redis.client.hgetall(indexKey('orders', 'main'))).sort()).toEqual([...made].sort())
  expect(await tally(redis.client)).toEqual({ replayed: ids.length })
  expect(await holds(redis.client)).toEqual({})
}

/** The same numbers every time. */
function numbers(seed: number): () => number {
  let state = seed
  return () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647
}

describe('millrace replay', () => {
  test('killed at seventeen points and resumed each time brings each match once, in order', async () => {
    const ids = await arrange(8000)
    const exact: Point[] = [1, 2, 3, 4, 5].flatMap((n) => MOMENTS.map((moment) => ({ script: copyReplay, moment, n })))
    const between: Point[] = [holdHistory, turnReplay].flatMap((script) =>
      MOMENTS.map((moment) => ({ script, moment, n: 1 })),
    )
    const first = ['replay', 'orders', '--from', '0-0', '--group', 'main', '--rate', String(RATE), '--execute']
    const [begin, ...others] = [...exact, ...between]
    if (begin === undefined) throw new Error('no points')
    let copied = 0
    await killAt(first, begin)
    const resume = ['replays', 'resume', 'orders', await idOfReplay()]
    for (const point of others) {
      await killAt(resume, point)
      if (point.script === copyReplay) copied += (point.moment === 'before' ? point.n - 1 : point.n) * STEP
      expect(await originals(redis.client)).toEqual(ids.slice(0, copied))
    }
    const random = numbers(20_261_121)
    for (let kills = 0; kills < 3; kills++) {
      const before = (await copies(redis.client)).length
      const at = before + Math.ceil(random() * 2 * STEP)
      const program = startProgram(resume, { env: { MILLRACE_REDIS_URL: redis.url } })
      const isThere = async () => (await redis.client.xlen(redeliveryKey('orders', 'main'))) >= at
      await waitFor(isThere, { intervalMs: 5, what: `${at} copies` })
      program.signal('SIGKILL')
      await program.exited
    }
    const { code, stderr } = await run(...resume)
    expect([code, stderr]).toEqual([0, expect.stringContaining('replayed 8,000 jobs of orders into group main')])
    await expectEachOnce(ids)
    const again = await run(...resume)
    expect([again.code, again.stderr]).toEqual([0, expect.stringContaining('is done already')])
    await expectEachOnce(ids)
  }, 180_000)

  const beginning = [holdHistory, createReplay].flatMap((script) => MOMENTS.map((moment) => ({ script, moment, n: 1 })))
  test.each(beginning)('killed $moment $script.name of its beginning is begun again or resumed', async (point) => {
    const ids = await arrange(50)
    const begin = ['replay', 'orders', '--from', '0-0', '--group', 'main', '--execute']
    await killAt(begin, point)
    const id = await idOfReplay()
    expect(id !== '').toBe(point.script === createReplay && point.moment === 'after')
    expect((await run(...(id === '' ? begin : ['replays', 'resume', 'orders', id]))).code).toBe(0)
    expect(await originals(redis.client)).toEqual(ids)
  })

  test('into another stream, killed around a step and resumed, appends each match once', async () => {
    const ids = await arrange(2000)
    await redis.client.xgroup('CREATE', 'copies', 'main', '0', 'MKSTREAM')
    const begin = ['replay', 'orders', '--from', '0-0', '--to-stream', 'copies', '--rate', String(RATE), '--execute']
    await killAt(begin, { script: copyReplay, moment: 'after', n: 2 })
    const [replay] = await newInspector(redis.url).replays.list('copies')
    const resume = ['replays', 'resume', 'copies', replay?.id ?? '']
    await killAt(resume, { script: copyReplay, moment: 'before', n: 2 })
    expect((await run(...resume)).code).toBe(0)
    expect(await originals(redis.client, 'copies')).toEqual(ids.map((id) => `orders ${id}`))
  })

  test('of named jobs, killed around a step and resumed, brings each of them once', async () => {
    const ids = await arrange(3000)
    const named = ids.filter((_, n) => n % 2 === 0)
    const stopping = new AbortController()
    const paused = await newInspector(redis.url).replays.start('orders', {
      ids: named,
      group: 'main',
      perSecond: RATE,
      signal: stopping.signal,
      onProgress: ({ copied }) => void (copied > 0 && stopping.abort()),
    })
    const resume = ['replays', 'resume', 'orders', paused.id]
    await killAt(resume, { script: copyReplay, moment: 'after', n: 2 })
    await killAt(resume, { script: copyReplay, moment: 'before', n: 2 })
    expect((await run(...resume)).code).toBe(0)
    await expectEachOnce(named)
  })
})

describe('a replay', () => {
  test('that several go on with at once brings each match once, in order', async () => {
    const ids = await arrange(5000)
    const stopping = new AbortController()
    const paused = await newInspector(redis.url).replays.start('orders', {
      from: 0,
      group: 'main',
      signal: stopping.signal,
      onProgress: ({ copied }) => void (copied > 0 && stopping.abort()),
    })
    expect(paused.status).toBe('paused')
    const results = await Promise.all([1, 2, 3].map(() => newInspector(redis.url).replays.resume('orders', paused.id)))
    expect(results.map(({ status, copied }) => [status, copied])).toEqual(results.map(() => ['done', 5000]))
    await expectEachOnce(ids)
  })

  test('whose answers are lost again and again brings each match once, in order', async () => {
    const ids = await arrange(5000)
    const proxy = await startProxy(redis.url)
    const lost = [createReplay, copyReplay, holdHistory].map((script) => proxy.swallowReplyTo(calls(script)))
    const result = newInspector(proxy.url).replays.start('orders', { from: 0, group: 'main', perSecond: 10_000 })
    await Promise.all(lost)
    for (let again = 0; again < 3; again++) await proxy.swallowReplyTo(calls(copyReplay))
    expect(await result).toMatchObject({ status: 'done', copied: 5000 })
    expect(await newInspector(redis.url).replays.list('orders')).toHaveLength(1)
    await expectEachOnce(ids)
  })

  test('whose ids are noted while answers are lost is of each of them once', async () => {
    const ids = await arrange(1500)
    const proxy = await startProxy(redis.url)
    const lost = proxy.swallowReplyTo(calls(noteReplayIds), 2)
    const result = await newInspector(proxy.url).replays.start('orders', { ids, group: 'main' })
    await lost
    expect(result).toMatchObject({ status: 'done', copied: 1500, ids: 1500 })
    await expectEachOnce(ids)
  })
})

describe('a Redis that is killed in the middle', () => {
  async function killedOn(steps: number) {
    const server = await startServer({ aof: true })
    const client = connectTo(server.url)
    await client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    const ids = await history(client, 4000)
    const args = ['replay', 'orders', '--from', '0-0', '--group', 'main', '--rate', String(RATE), '--execute']
    const program = startProgram(args, { env: { MILLRACE_REDIS_URL: server.url } })
    const isThere = async () => (await client.xlen(redeliveryKey('orders', 'main'))) >= steps * STEP
    await waitFor(isThere, { what: `${steps} steps` })
    await server.kill()
    return { server, client, ids, program }
  }

  test('and comes back has the replay go on by itself', async () => {
    const { server, client, ids, program } = await killedOn(3)
    await server.restart()
    expect(await program.exited).toBe(0)
    expect(await originals(client)).toEqual(ids)
  })

  test('and stays away for long ends it with 5 and the command that goes on', async () => {
    const { server, client, ids, program } = await killedOn(3)
    expect(await program.exited).toBe(5)
    const said = program.stderr.join('\n')
    const [, id = ''] = /; to go on: millrace replays resume orders (r\w{8})$/m.exec(said) ?? []
    expect(said).toMatch(/replay r\w{8} has copied \d+ jobs into orders, it stands where it was: resume it/)
    await server.restart()
    const { code, stderr } = await millrace(['replays', 'resume', 'orders', id], { redis: server.url })
    expect([code, stderr]).toEqual([0, expect.stringContaining('replayed 4,000 jobs of orders')])
    expect(await originals(client)).toEqual(ids)
  }, 120_000)
})
