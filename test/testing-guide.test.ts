import { beforeAll, expect, test } from 'vitest'
import { idleParts, MOST_MS, openGuide, runGuide, type OpenGuide } from './helpers/guide-runner.ts'
import { withRedis } from './helpers/redis.ts'

/** docs/testing.md, executed. */

const redis = withRedis()
let opened: OpenGuide

beforeAll(async () => {
  opened = await openGuide('docs/testing.md')
})

test('every section of docs/testing.md has commands that say what they print, and every file on it is used', () => {
  // The others import it.
  expect(idleParts(opened)).toEqual(['handlers.mjs'])
})

test(
  'every test of docs/testing.md passes as it is written',
  async () => {
    await runGuide(opened, redis.url)
  },
  MOST_MS + 10_000,
)
