import { existsSync } from 'node:fs'
import { readdir, readFile, rename, truncate, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describe, expect, test } from 'vitest'
import { checkSpill } from '../src/publish/spill-files.ts'
import { headerOf } from '../src/publish/spill-format.ts'
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
import { keepingLogger } from './helpers/log.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()

const all = { unknown: 0, broken: 0, left: undefined }

/** Has Redis know a producer, and execute its batch if that is said. */
async function known(batch: ReturnType<typeof onItsWay>, isExecuted: boolean): Promise<void> {
  await openProducer(redis.client, batch.stream, batch.producerId)
  if (isExecuted) await append(redis.client, batch.stream, batch)
}

/** A recovery that appends the batch of the file, and dies before it has heard of that. */
async function dieBehindAppend(path: string): Promise<void> {
  await loadSpillScripts(redis.client)
  const proxy = await startProxy(redis.url)
  let seen = 0
  // Its own number, which number there is, the take-over, the batch.
  const swallowed = proxy.swallowReplyKeepOpen((command) => isScript(command) && (seen += 1) === 4)
  void newRecovery(proxy.url, path, { socketTimeoutMs: 60_000 }).start()
  await swallowed
}

describe('a spill file is published', () => {
  test('once, in order, what was on its way first, and is removed', async () => {
    const path = await spillPath()
    const batch = onItsWay(spilled(1, 3))
    await known(batch, false)
    await writeSpill(path, { batches: [batch], jobs: spilled(4, 1500) })
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 1500, ...all }])
    expect(await numbersIn(redis.client)).toEqual(range(1, 1500))
    expect(await readdir(dirname(path))).toEqual([])
  })

  test('without doubling a batch that had been executed', async () => {
    const path = await spillPath()
    const batch = onItsWay(spilled(1, 3))
    await known(batch, true)
    await writeSpill(path, { batches: [batch], jobs: spilled(4, 5) })
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 5, ...all }])
    expect(await numbersIn(redis.client)).toEqual(range(1, 5))
  })

  test('with a batch whose producer had gone on behind it', async () => {
    const path = await spillPath()
    const batch = onItsWay(spilled(1, 2))
    await known(batch, true)
    await append(redis.client, 'orders', { ...batch, seq: 2, items: spilled(3, 3) })
    await writeSpill(path, { batches: [batch], jobs: [] })
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 2, ...all }])
    expect(await numbersIn(redis.client)).toEqual([1, 2, 3])
  })

  test('with a batch that Redis has lost in a failover, and late copies of it double nothing', async () => {
    const path = await spillPath()
    const batch = onItsWay(spilled(1, 2), 'p', 3)
    await known({ ...batch, seq: 1, items: spilled(0, 0) }, true)
    await writeSpill(path, { batches: [batch], jobs: [] })
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 2, ...all }])
    for (const seq of [2, 3, 4]) {
      expect(await append(redis.client, 'orders', { ...batch, seq })).toEqual({ kind: 'stale' })
    }
    expect(await numbersIn(redis.client)).toEqual([0, 1, 2])
  })

  test('with such a batch once, though the recovery that appended it died before it could note that', async () => {
    const path = await spillPath()
    const batch = onItsWay(spilled(1, 2), 'p', 3)
    await known({ ...batch, seq: 1, items: spilled(0, 0) }, true)
    await writeSpill(path, { batches: [batch], jobs: [] })
    await dieBehindAppend(path)
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 2, ...all }])
    expect(await numbersIn(redis.client)).toEqual([0, 1, 2])
  })

  test('with such a batch of which a job was refused: that one is left then, and not taken to be published', async () => {
    const path = await spillPath()
    const jobs = spilled(1, 2).map((job, at) => (at === 1 ? { ...job, token: { text: 'taken', ttlMs: 1000 } } : job))
    const batch = onItsWay(jobs, 'p', 3)
    await redis.client.hset('{orders}:token:taken', 'no', 'token')
    await known({ ...batch, seq: 1, items: spilled(0, 0) }, true)
    await writeSpill(path, { batches: [batch], jobs: [] })
    await dieBehindAppend(path)
    expect(await recover(redis.url, path)).toMatchObject([{ published: 1, unknown: 0, broken: 1 }])
    expect(await numbersIn(redis.client)).toEqual([0, 1])
  })

  test('with the fields, times and tokens that its jobs had', async () => {
    const path = await spillPath()
    const fields = ['job', 'x', 'data', '"\ud83d\ude00 \\n"', 'traceparent', '00-1']
    const token = { text: 'order-1', ttlMs: 60_000 }
    const jobs = [
      { stream: 'orders', fields, ref: 'a', token },
      { stream: 'orders', fields, ref: 'b', token },
      { stream: 'orders', fields, ref: 'c', due: '+60000' },
    ]
    await writeSpill(path, { batches: [], jobs })
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 3, ...all }])
    expect((await redis.client.xrange('orders', '-', '+')).map(([, stored]) => stored)).toEqual([fields])
    expect(await redis.client.zcard('{orders}:scheduled')).toBe(1)
  })

  test('to several streams, from several files, the oldest first', async () => {
    const path = await spillPath()
    for (const n of [1, 11, 21]) {
      await writeSpill(path, { batches: [], jobs: [...spilled(n, n + 9), ...spilled(n, n, { stream: 'mails' })] })
    }
    expect((await recover(redis.url, path)).map(({ published }) => published)).toEqual([11, 11, 11])
    expect(await numbersIn(redis.client)).toEqual(range(1, 30))
    expect(await numbersIn(redis.client, 'mails')).toEqual([1, 11, 21])
    expect(await readdir(dirname(path))).toEqual([])
  })

  test('and says which streams are to wait for it', async () => {
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 1) })
    const recovery = newRecovery(redis.url, path)
    expect(['orders', 'mails'].map((stream) => recovery.holds(stream))).toEqual([true, false])
    await recovery.start()
    expect(recovery.holds('orders')).toBe(false)
  })

  test('in batches of at most 500 jobs and a mebibyte', async () => {
    const path = await spillPath()
    const large = spilled(1, 4).map((job) => ({ ...job, fields: [...job.fields, 'h-x', 'x'.repeat(700_000)] }))
    await writeSpill(path, { batches: [], jobs: [...large, ...spilled(5, 1004)] })
    await recover(redis.url, path)
    const [key = ''] = await redis.client.keys('{orders}:producer:*')
    // Four of the large ones, 500 and 500: the last of the large ones has no room beside it, but what is small has.
    expect(Number(await redis.client.hget(key, 'seq'))).toBeGreaterThanOrEqual(6)
    expect(await numbersIn(redis.client)).toEqual(range(1, 1004))
  })
})

describe('the bound of a stream', () => {
  test('is kept: what has no room waits, and what has goes', async () => {
    const path = await spillPath()
    await redis.client.hset('{orders}:settings', 'maxBacklog', 7)
    await writeSpill(path, { batches: [], jobs: spilled(1, 20) })
    const recovering = newRecovery(redis.url, path).start()
    await eventually(async () => expect(await numbersIn(redis.client)).toEqual(range(1, 7)))
    await redis.client.hset('{orders}:settings', 'maxBacklog', 12)
    await eventually(async () => expect(await numbersIn(redis.client)).toEqual(range(1, 12)))
    await redis.client.hdel('{orders}:settings', 'maxBacklog')
    expect(await recovering).toEqual([{ file: path, published: 20, ...all }])
    expect(await numbersIn(redis.client)).toEqual(range(1, 20))
  })

  test('does not stop a batch that may have been executed', async () => {
    const path = await spillPath()
    await redis.client.hset('{orders}:settings', 'maxBacklog', 1)
    const batch = onItsWay(spilled(1, 3))
    await known(batch, false)
    await writeSpill(path, { batches: [batch], jobs: [] })
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 3, ...all }])
  })

  test('is not the only thing that jobs wait for: also what holds publishes', async () => {
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 3) })
    let asked = 0
    await newRecovery(redis.url, path, { isHeld: () => (asked += 1) < 3 }).start()
    expect(asked).toBe(3)
    expect(await numbersIn(redis.client)).toEqual([1, 2, 3])
  })
})

describe('what cannot be published is told, and left in a file of its own', () => {
  test('a batch of which Redis knows nothing any more is unknown, the rest is published', async () => {
    const path = await spillPath()
    const [awaited, ...buffered] = spilled(1, 3)
    const batch = onItsWay([{ fields: awaited?.fields ?? [] }, ...buffered])
    await writeSpill(path, { batches: [batch], jobs: spilled(4, 5) })
    const { logger, messages } = keepingLogger()
    const [told] = await recover(redis.url, path, logger)
    expect(told).toMatchObject({ published: 2, unknown: 2, broken: 0 })
    expect(await numbersIn(redis.client)).toEqual([4, 5])
    expect([...messages()]).toContain('Redis no longer knows whether it has a spilled batch')
    const left = await readFile(told?.left ?? '', 'utf8')
    expect(left.match(/ref-\d/g)).toEqual(['ref-2', 'ref-3'])
    expect((await readdir(dirname(path))).map((name) => name.replace(/-\w{8}$/, '-id'))).toEqual([
      'spill.ndjson.left-id',
    ])
  })

  test('it is published after all if that is moved to where a spill file is', async () => {
    const path = await spillPath()
    await writeSpill(path, { batches: [onItsWay(spilled(1, 3))], jobs: [] })
    const [told] = await recover(redis.url, path)
    expect(await recover(redis.url, path)).toEqual([])
    await rename(told?.left ?? '', path)
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 3, ...all }])
    expect(await numbersIn(redis.client)).toEqual([1, 2, 3])
  })

  test('a job that Redis refuses is left, those beside it are published', async () => {
    const path = await spillPath()
    await redis.client.hset('{orders}:token:taken', 'no', 'token')
    const jobs = spilled(1, 3).map((job, at) => (at === 1 ? { ...job, token: { text: 'taken', ttlMs: 1000 } } : job))
    const batch = onItsWay(jobs.map((job) => ({ ...job, ref: `batch-${job.ref}` })))
    await known(batch, false)
    await writeSpill(path, { batches: [batch], jobs })
    const [told] = await recover(redis.url, path)
    expect(told).toMatchObject({ published: 4, unknown: 0, broken: 2 })
    expect((await readFile(told?.left ?? '', 'utf8')).match(/"ref":"[^"]*/g)).toEqual([
      '"ref":"batch-ref-2',
      '"ref":"ref-2',
    ])
  })

  test('lines that cannot be read are left as they are, the rest is published', async () => {
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 5) })
    const text = await readFile(path, 'utf8')
    await writeFile(path, text.replace('"fields":["job","x","data","3"]', '"fields":[garbage]'))
    const [told] = await recover(redis.url, path)
    expect(told).toMatchObject({ published: 4, unknown: 0, broken: 1 })
    expect(await readFile(told?.left ?? '', 'utf8')).toContain('"fields":[garbage]')
    expect(await numbersIn(redis.client)).toEqual([1, 2, 4, 5])
  })

  test('a stream that Redis refuses stays in the file, other streams do not wait for it', async () => {
    const path = await spillPath()
    await redis.client.set('orders', 'no stream')
    await writeSpill(path, { batches: [], jobs: [...spilled(1, 2), ...spilled(3, 4, { stream: 'mails' })] })
    const { logger, lines } = keepingLogger()
    expect(await recover(redis.url, path, logger)).toEqual([])
    expect(lines.filter(({ level }) => level === 'error').map(({ fields }) => fields['fault'])).toEqual([
      expect.stringContaining('WRONGTYPE'),
    ])
    expect(await numbersIn(redis.client, 'mails')).toEqual([3, 4])
    await redis.client.del('orders')
    expect(await recover(redis.url, path)).toEqual([{ file: path, published: 4, ...all }])
    expect(await numbersIn(redis.client, 'mails')).toEqual([3, 4])
    expect(await numbersIn(redis.client)).toEqual([1, 2])
  })
})

describe('a file that was cut by a crash', () => {
  test('wherever it was cut, every whole line is published once and the cut one is left', async () => {
    const path = await spillPath()
    const batch = onItsWay(spilled(1, 2))
    await writeSpill(path, { batches: [batch], jobs: [...spilled(3, 4), ...spilled(5, 6, { stream: 'mails' })] })
    const text = await readFile(path)
    const header = text.indexOf('\n') + 1
    // Around each line's end, and in the middle of each line.
    const ends = [...text.keys()].filter((at) => at >= header - 1 && text[at] === 10)
    const cuts = ends.flatMap((at) => [at - 20, at - 1, at, at + 1]).filter((at) => at >= header && at < text.length)
    for (const cut of cuts) {
      await redis.flush()
      await known(batch, cut % 2 === 0)
      await writeFile(path, text)
      await truncate(path, cut)
      const whole = [...text.toString('utf8', 0, cut).matchAll(/"ref":"ref-(\d)"\}\}/g)].map(([, n]) => Number(n))
      const [told] = await recover(redis.url, path)
      const stored = [...(await numbersIn(redis.client)), ...(await numbersIn(redis.client, 'mails'))]
      const inRedis = cut % 2 === 0 ? [...new Set([1, 2, ...whole])] : whole
      expect(stored, `cut at ${cut}`).toEqual(inRedis)
      expect(told?.unknown).toBe(0)
      expect(existsSync(path)).toBe(false)
      if (told?.left === undefined) continue
      expect(told.broken).toBe(1)
      expect(await readFile(told.left, 'utf8')).toContain(text.toString('utf8', text.lastIndexOf(10, cut - 1) + 1, cut))
    }
  })

  test('is left alone while its writer may still write, and published when that is over', async () => {
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 2) })
    const text = await readFile(path, 'utf8')
    const header = headerOf(text.slice(0, text.indexOf('\n')))
    const ours = `"pid":${header !== undefined && 'pid' in header ? header.pid : ''}`
    // The parent of this process lives, and is not this one.
    await writeFile(path, text.replace(ours, `"pid":${process.ppid}`).replace(/\{"end".*/, ''))
    const { logger, messages } = keepingLogger()
    const recovery = newRecovery(redis.url, path, { logger })
    const recovering = recovery.start()
    await eventually(() => expect([...messages()].join()).toContain('still being written'))
    expect(recovery.holds('orders')).toBe(false)
    expect(await numbersIn(redis.client)).toEqual([])
    await writeFile(path, text.replace(ours, `"pid":${process.ppid}`))
    expect(await recovering).toEqual([{ file: path, published: 2, ...all }])
  })
})

describe('a file that changes under its recovery', () => {
  test('is not removed if another one has taken its name', async () => {
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 1) })
    let [isAsked, isSwapped] = [false, false]
    const isHeld = (): boolean => {
      isAsked = true
      return !isSwapped
    }
    const recovery = newRecovery(redis.url, path, { isHeld })
    const recovering = recovery.start()
    await eventually(() => expect(isAsked).toBe(true))
    await rename(path, `${path}.away`)
    await writeSpill(path, { batches: [], jobs: spilled(2, 2) })
    isSwapped = true
    expect(await recovering).toHaveLength(1)
    expect(checkSpill(path)).toHaveLength(1)
    expect(await recover(redis.url, path)).toHaveLength(1)
    expect(await numbersIn(redis.client)).toEqual([1, 2])
  })

  test('is passed over if somebody else was done with it first', async () => {
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 1) })
    const late = newRecovery(redis.url, path)
    await recover(redis.url, path)
    expect(await late.start()).toEqual([])
    await writeSpill(path, { batches: [], jobs: spilled(2, 2) })
    expect(await numbersIn(redis.client)).toEqual([1])
  })
})
