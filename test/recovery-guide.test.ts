import { beforeAll, expect, test } from 'vitest'
import { idleParts, MOST_MS, openGuide, runGuide, type OpenGuide } from './helpers/guide-runner.ts'
import { withRedis } from './helpers/redis.ts'

/** docs/recovery.md, executed: an incident from the first complaint to the last audit. */

const redis = withRedis()
let opened: OpenGuide

beforeAll(async () => {
  opened = await openGuide('docs/recovery.md')
})

test('every section of docs/recovery.md has commands that say what they print, and every file on it is used', () => {
  // jobs.ts is imported by the others.
  expect(idleParts(opened).filter((part) => part !== 'jobs.ts')).toEqual([])
})

test(
  'the incident of docs/recovery.md goes as it is told, command by command',
  async () => {
    await runGuide(opened, redis.url)
  },
  MOST_MS + 10_000,
)
