import { beforeAll, expect, test } from 'vitest'
import { MOST_MS, openGuide, runGuide, type OpenGuide } from './helpers/guide-runner.ts'
import { withRedis } from './helpers/redis.ts'

/** docs/chains.md, executed. */

const redis = withRedis()
let opened: OpenGuide

beforeAll(async () => {
  opened = await openGuide('docs/chains.md')
})

test('every file on docs/chains.md is run by a command', () => {
  expect(opened.guide.files.map(({ name }) => name)).toEqual(['handlers.ts'])
})

test(
  'every command of docs/chains.md runs as it is written, and prints what it says',
  () => runGuide(opened, redis.url),
  MOST_MS + 10_000,
)
