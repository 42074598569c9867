import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { Feed } from '../../src/index.ts'
import { startMillrace } from '../cli/run.ts'
import { loadScripts } from '../fixtures/producers.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { startProxy, type FaultProxy, type Match } from '../helpers/proxy.ts'
import { withRedis } from '../helpers/redis.ts'

/** The command line is killed while it publishes a file, at every point of a batch, and goes on with `--resume`. */

const redis = withRedis()

const isOpening: Match = ([name, , keys]) => name === 'evalsha' && keys === '1'
const isBatch: Match = ([name, , keys]) => name === 'evalsha' && keys === '5'

/** The nth of what matches. */
const nth = (match: Match, n: number): Match => {
  let seen = 0
  return (command) => match(command) && ++seen === n
}

interface Point {
  readonly reached: Promise<void>
  readonly left?: () => void
}

/** Where a run is killed: the batch is on its way and arrives late, it was executed and nobody was told, it was cut off. */
const POINTS: readonly ((proxy: FaultProxy, n: number) => Point)[] = [
  (proxy, n) => {
    const hold = proxy.holdBefore(nth(isBatch, n))
    return { reached: hold.held, left: () => hold.release() }
  },
  (proxy, n) => ({ reached: proxy.swallowReplyKeepOpen(nth(isBatch, n)) }),
  (proxy, n) => ({ reached: proxy.cutBefore(nth(isBatch, n)) }),
]

const knowScripts = async (): Promise<void> => {
  await loadScripts(redis.client)
  const feed = new Feed({ redis: redis.url, stream: 'load', id: 'load', isNew: true })
  await feed.open()
  await feed.publish([{ job: 'x', data: 1, position: '1' }])
  await feed.close()
}

async function fileOf(lines: number, isPacked: boolean): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  onEnd(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, isPacked ? 'jobs.ndjson.gz' : 'jobs.ndjson')
  // Blank lines, line ends of Windows, letters of several bytes: places are counted in bytes.
  const text = Array.from({ length: lines }, (_, at) => {
    const blank = at % 97 === 0 ? '\n' : ''
    return `${blank}{"job":"mail","data":{"order":${at},"to":"Zoë ✉"}}${at % 3 === 0 ? '\r' : ''}\n`
  }).join('')
  await writeFile(path, isPacked ? gzipSync(text) : text)
  return path
}

const ordersIn = async (stream: string) =>
  (await redis.client.xrange(stream, '-', '+')).map(
    ([, fields]) => (JSON.parse(fields[3] ?? '') as { order: number }).order,
  )

/** Runs it to its end, killed on the way as often as it takes; gives how often. */
async function publishKilled(stream: string, path: string): Promise<number> {
  const proxy = await startProxy(redis.url)
  for (let kills = 0; ; kills++) {
    const point = POINTS[kills % 3]?.(proxy, 1 + (kills % 2)) ?? expect.fail('there is no such point')
    const args = ['publish', stream, '--file', path, '--json', ...(kills === 0 ? [] : ['--resume'])]
    const run = startMillrace(args, { redis: proxy.url })
    const outcome = await Promise.race([run.ended, point.reached])
    if (outcome !== undefined) {
      expect(outcome).toMatchObject({ code: 0 })
      return kills
    }
    run.process.kill('SIGKILL')
    await run.ended
    point.left?.()
  }
}

test('a file, packed or not, has each of its lines once and in order in the stream, however often its publisher is killed', async () => {
  await knowScripts()
  const [plain, packed] = await Promise.all([fileOf(10_500, false), fileOf(2000, true)])
  const kills = await Promise.all([publishKilled('plain', plain), publishKilled('packed', packed)])
  expect(kills[0]).toBeGreaterThanOrEqual(20)
  expect(kills[1]).toBeGreaterThanOrEqual(3)
  expect(await ordersIn('plain')).toEqual(Array.from({ length: 10_500 }, (_, at) => at))
  expect(await ordersIn('packed')).toEqual(Array.from({ length: 2000 }, (_, at) => at))
})

test('a publisher that is killed before its file is begun leaves nothing that keeps it from being begun', async () => {
  await knowScripts()
  const path = await fileOf(10, false)
  const proxy = await startProxy(redis.url)
  const opened = proxy.swallowReplyKeepOpen(isOpening)
  const run = startMillrace(['publish', 'orders', '--file', path], { redis: proxy.url })
  await opened
  run.process.kill('SIGKILL')
  await run.ended
  const again = await startMillrace(['publish', 'orders', '--file', path], { redis: redis.url, stdin: '' }).ended
  expect(again).toMatchObject({ code: 0 })
  expect(await ordersIn('orders')).toHaveLength(10)
})
