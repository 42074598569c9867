import { beforeAll, expect, test } from 'vitest'
import { idleParts, MOST_MS, openGuide, runGuide, type OpenGuide } from './helpers/guide-runner.ts'
import { withRedis } from './helpers/redis.ts'

/** docs/batches.md, executed. */

const redis = withRedis()
let opened: OpenGuide

beforeAll(async () => {
  opened = await openGuide('docs/batches.md')
})

test('every section of docs/batches.md has commands that say what they print, and every file on it is run by one', () => {
  expect(idleParts(opened)).toEqual([])
})

test(
  'every command and program of docs/batches.md runs as it is written, and prints what it says',
  () => runGuide(opened, redis.url),
  MOST_MS + 10_000,
)
