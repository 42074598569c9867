import { beforeAll, expect, test } from 'vitest'
import { Inspector, type StreamStats } from '../src/index.ts'
import { onEnd } from './helpers/cleanup.ts'
import { idleParts, MOST_MS, openGuide, runGuide, type OpenGuide } from './helpers/guide-runner.ts'
import { withRedis } from './helpers/redis.ts'

/** docs/failing.md, executed. */

const redis = withRedis()
let opened: OpenGuide

beforeAll(async () => {
  opened = await openGuide('docs/failing.md')
})

test('every section of docs/failing.md has commands that say what they print, and every file on it is run by one', () => {
  expect(idleParts(opened)).toEqual([])
})

test(
  'every command and program of docs/failing.md runs as it is written, and prints what it says',
  async () => {
    await runGuide(opened, redis.url)
    expect(await left()).toEqual({ orders: [4, 'main 0'], payments: [0, 'main 1'], reports: [0, 'main 0'] })
  },
  MOST_MS + 10_000,
)

/** By stream: delayed jobs, and its groups with their dead letters. */
async function left(): Promise<Record<string, unknown>> {
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  const groupsOf = ({ groups }: StreamStats) => groups.map(({ group, dead }) => `${group} ${dead}`)
  return Object.fromEntries(
    (await inspector.stats()).map((stats) => [stats.stream, [stats.scheduled, ...groupsOf(stats)]]),
  )
}
