import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { PauseOptions } from '../../src/index.ts'
import { startChild } from '../helpers/child.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { awaitPulses } from '../helpers/pulses.ts'
import { serverMs, withRedis } from '../helpers/redis.ts'
import { add, pending, startWorkerProcess, tally } from '../helpers/workers.ts'

/** A pause over four processes, with whoever set it and one of those that heed it killed while it is in force. */

const redis = withRedis()
const LEASE_MS = 2000
const QUICK = 6

/** Pauses from a process that is killed at once; gives until when it is paused. */
async function pauseAndDie(options: PauseOptions): Promise<number> {
  const setter = startChild(new URL('../fixtures/pause-setter.ts', import.meta.url), {
    env: { REDIS_URL: redis.url, PAUSE: JSON.stringify(options) },
  })
  const [, untilMs] = await setter.line(/^paused until (.+)$/)
  setter.signal('SIGKILL')
  await setter.exited
  return Number(untilMs)
}

test('is in force in four processes, and stays so though its setter and a worker are killed; over, all that waited runs once', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-pause-'))
  onEnd(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'go')
  const start = () => startWorkerProcess({ redis: redis.url, leaseMs: LEASE_MS, concurrency: 1 })
  const workers = [await start(), await start(), await start(), await start()]
  const log = () => workers.flatMap((worker) => worker.log())
  const running = await Promise.all([1, 2, 3, 4].map(() => add(redis.client, 'gated', { file })))
  const started = () => log().flatMap((line) => (line.startsWith('started') ? [line.split(' ')[1] ?? ''] : []))
  await eventually(() => expect([...new Set(started())].sort()).toEqual(running))

  await pauseAndDie({ reason: 'migration', by: 'a process that is dead' })
  await awaitPulses(redis.client, 2, { workers: 4 })
  const waiting: string[] = []
  for (let n = 0; n < QUICK; n++) waiting.push(await add(redis.client, 'quick'))
  const [killed] = workers
  killed?.signal('SIGKILL')
  await killed?.exited
  // Those that are free now, and one that starts meanwhile, would begin what waits, and claim what the dead one had.
  writeFileSync(file, '')
  workers.push(await start())
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 3 }))
  await eventually(async () => expect((await pending(redis.client))[0]?.idleMs).toBeGreaterThan(2 * LEASE_MS))
  await awaitPulses(redis.client, 2, { workers: 4, but: [killed?.consumer ?? ''] })
  // A machine that is slow may have lost its lease before the pause; then it was taken over, and given back unbegun.
  expect([killed?.consumer, ':handback']).toContain((await pending(redis.client))[0]?.consumer)
  expect(started()).toHaveLength(4)
  expect(log().filter((line) => line.startsWith('ran'))).toEqual([])
  const [stats] = await newInspector(redis.url).stats('orders')
  expect(stats?.paused).toMatchObject({ reason: 'migration', by: 'a process that is dead', untilMs: null })

  // Nobody resumes it: the one that replaces it ends by itself.
  const untilMs = await pauseAndDie({ forMs: 1000 })
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 4 + QUICK }))
  expect(await serverMs(redis.client)).toBeGreaterThanOrEqual(untilMs)
  const lines = log().map((line) => line.split(' ').slice(0, 3).join(' '))
  expect(lines.filter((line) => line.startsWith('ran')).sort()).toEqual(waiting.map((id) => `ran ${id} 1`))
  const ended = lines.filter((line) => line.startsWith('ended'))
  expect(ended.map((line) => line.split(' ')[1]).sort()).toEqual(running)
  expect(ended.filter((line) => line.endsWith(' 2'))).toHaveLength(1)
}, 90_000)
