import { existsSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { writeSpill } from '../src/publish/spill-writing.ts'
import { append, open as openProducer } from '../src/redis/publishing.ts'
import {
  isScript,
  loadSpillScripts,
  newRecovery,
  numbersIn,
  onItsWay,
  range,
  recover,
  spilled,
  spillPath,
} from './fixtures/spills.ts'
import { onEnd } from './helpers/cleanup.ts'
import { startProxy } from './helpers/proxy.ts'
import { withRedis } from './helpers/redis.ts'

/**
 * A recovery that stands still for ever at one point has done all that one has done that is killed there, and can be let go
 * on when another one has finished the file: as a process that was stopped for a while does. Every point is tried.
 */

const redis = withRedis()
const batch = onItsWay(spilled(1, 3))

/** A file with a batch that was on its way, executed or not, and the jobs of two streams; gives its path. */
async function spill(isExecuted: boolean): Promise<string> {
  await redis.flush()
  await loadSpillScripts(redis.client)
  await openProducer(redis.client, 'orders', 'p')
  if (isExecuted) await append(redis.client, 'orders', batch)
  const path = await spillPath()
  const jobs = [...spilled(4, 1100), ...spilled(1, 2, { stream: 'mails' })]
  await writeSpill(path, { batches: [batch], jobs })
  return path
}

async function expectOnce(): Promise<void> {
  expect(await numbersIn(redis.client)).toEqual(range(1, 1100))
  expect(await numbersIn(redis.client, 'mails')).toEqual([1, 2])
}

/** Scripts that the recovery of such a file runs: the batch, then taking over and batches of 500, for each stream. */
const CALLS = 1 + (1 + 3) + (1 + 1)

const points = Array.from({ length: CALLS }, (_, at) => at + 1)

/** Matches the nth script. */
function nth(n: number): (command: string[]) => boolean {
  let seen = 0
  return (command) => isScript(command) && (seen += 1) === n
}

test.each(points)(
  'a recovery that is held before its script %i, and goes on later, doubles and loses nothing',
  async (n) => {
    const path = await spill(n % 2 === 0)
    const proxy = await startProxy(redis.url)
    const hold = proxy.holdBefore(nth(n))
    const late = newRecovery(proxy.url, path).start()
    await hold.held
    expect(await recover(redis.url, path)).toMatchObject([{ published: 1102, unknown: 0, broken: 0 }])
    await expectOnce()
    hold.release()
    await late
    await expectOnce()
    expect(existsSync(path)).toBe(false)
  },
)

test.each(points)('one that never hears the answer to its script %i doubles and loses nothing', async (n) => {
  const path = await spill(n % 2 === 0)
  const proxy = await startProxy(redis.url)
  const swallowed = proxy.swallowReplyKeepOpen(nth(n))
  void newRecovery(proxy.url, path, { socketTimeoutMs: 60_000 }).start()
  await swallowed
  expect(await recover(redis.url, path)).toMatchObject([{ published: 1102, unknown: 0, broken: 0 }])
  await expectOnce()
  expect(existsSync(path)).toBe(false)
})

test.each(points)('one whose connection is lost with the answer to its script %i goes on by itself', async (n) => {
  const path = await spill(n % 2 === 0)
  const proxy = await startProxy(redis.url)
  const swallowed = proxy.swallowReplyTo(nth(n))
  const recovering = newRecovery(proxy.url, path).start()
  await swallowed
  expect(await recovering).toMatchObject([{ published: 1102, unknown: 0, broken: 0 }])
  await expectOnce()
})

/** Has the nth write to a file stand still, before or after it was done; resolves when it does. */
function standStill(files: Record<'write', Write>, n: number, when: 'before' | 'after'): Promise<void> {
  const original = files.write
  const restore = () => (files.write = original)
  onEnd(() => void restore())
  return new Promise((resolve) => {
    let calls = 0
    files.write = async function (this: FileHandle, ...args) {
      calls += 1
      if (calls < n) return original.apply(this, args)
      restore()
      onEnd(() => this.close())
      if (when === 'after') await original.apply(this, args)
      resolve()
      return new Promise<never>(() => {})
    }
  })
}

type Write = (...args: unknown[]) => Promise<unknown>

/** What all open files have in common. */
async function methodsOfFiles(): Promise<Record<'write', Write>> {
  const file = await open(import.meta.filename)
  await file.close()
  return Object.getPrototypeOf(file) as Record<'write', Write>
}

/** What a recovery notes in the file: that the batch is done, and for each stream that its sequence has begun and is done. */
const NOTES = 1 + 2 + 2

const notes = Array.from({ length: NOTES }, (_, at) => at + 1).flatMap((n) => [
  { n, when: 'before' as const },
  { n, when: 'after' as const },
])

test.each(notes)('one that dies $when note $n of what it did doubles and loses nothing', async ({ n, when }) => {
  const path = await spill(n % 2 === 0)
  const standing = standStill(await methodsOfFiles(), n, when)
  void newRecovery(redis.url, path).start()
  await standing
  expect(await recover(redis.url, path)).toMatchObject([{ published: 1102, unknown: 0, broken: 0 }])
  await expectOnce()
  expect(existsSync(path)).toBe(false)
})

test.each(['before', 'after'] as const)(
  'one that dies %s it notes that Redis refused a job leaves that job to be published, or in its file',
  async (when) => {
    await redis.flush()
    const path = await spillPath()
    await redis.client.hset('{orders}:token:taken', 'no', 'token')
    const jobs = spilled(1, 3).map((job, at) => (at === 1 ? { ...job, token: { text: 'taken', ttlMs: 60_000 } } : job))
    await writeSpill(path, { batches: [], jobs })
    // The first note is that the sequence has begun.
    const standing = standStill(await methodsOfFiles(), 2, when)
    void newRecovery(redis.url, path).start()
    await standing
    await redis.client.del('{orders}:token:taken')
    const [told] = await recover(redis.url, path)

    expect(told).toMatchObject(when === 'before' ? { published: 3, broken: 0 } : { published: 2, broken: 1 })
    expect(await numbersIn(redis.client)).toEqual(when === 'before' ? [1, 2, 3] : [1, 3])
  },
)
