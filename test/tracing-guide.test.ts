import { beforeAll, expect, test } from 'vitest'
import { MOST_MS, openGuide, runGuide, type OpenGuide } from './helpers/guide-runner.ts'
import { withRedis } from './helpers/redis.ts'

/** docs/tracing.md, executed. */

const redis = withRedis()
let opened: OpenGuide

beforeAll(async () => {
  opened = await openGuide('docs/tracing.md')
})

test('every file on docs/tracing.md is used by one of its commands', () => {
  const commands = opened.guide.commands.map(({ text }) => text).join('\n')
  expect(opened.guide.files.map(({ name }) => name).filter((name) => !commands.includes(name))).toEqual([])
})

test(
  'every command and program of docs/tracing.md runs as it is written, and prints what it says',
  () => runGuide(opened, redis.url),
  MOST_MS + 10_000,
)
