import { expect, test } from 'vitest'
import { cancelledKey, scheduledKey, uniqueKey } from '../../src/redis/keys.ts'
import { withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const cli = (args: readonly string[], stdin: string | Buffer = '') => millrace(args, { redis: redis.url, stdin })
const publish = (...flags: string[]) => cli(['publish', 'orders', 'sync', '1', '--unique-key', 'u', ...flags])

test('publish with a key tells of a duplicate, and of what is replaced, with the id on stdout', async () => {
  const first = await publish()
  const second = await publish()
  expect(second).toMatchObject({ code: 0, stdout: first.stdout })
  expect(second.stderr).toContain(`duplicate: job ${first.stdout.trim()} has the key, and nothing was published`)
  const third = await publish('--unique-mode', 'replace')
  expect(third.stderr).toContain(`replaced: job ${first.stdout.trim()} gave way, and is not run`)
  expect(await redis.client.zrange(cancelledKey('orders'), '0', '-1')).toEqual([first.stdout.trim()])
  const json = JSON.parse((await publish('--json')).stdout) as object
  expect(json).toMatchObject({ outcome: 'duplicate', firstId: third.stdout.trim() })
})

test('publish puts off a job that waits for its time, for a scope that is a duration', async () => {
  const flags = ['--unique-mode', 'debounce', '--unique-scope', '10m', '--unique-max-wait', '30d', '--delay', '5m']
  const first = await publish(...flags)
  const second = await publish(...flags)
  expect(second.stdout).toBe(first.stdout)
  expect(second.stderr).toContain('has this payload and this time now')
  expect(await redis.client.zcard(scheduledKey('orders'))).toBe(1)
  expect(await redis.client.get(uniqueKey('orders', 'u'))).toMatch(/ l : \d+$/)
})

// What is empty is a variable of a shell that is not set, and asks for something all the same.
test.each([
  [['--unique-scope', 'always'], 'expected `--unique-scope` to be until-settled, until-started or a duration'],
  [['--unique-mode', ''], 'expected `unique.mode` to be one of reject, replace, debounce, got ""'],
  [['--unique-mode', 'debounce'], 'expected `delayMs` or `runAt`'],
  [['--unique-group', ''], 'expected a group name'],
])('publish refuses %j with what was expected', async (flags, wanted) => {
  const { code, stderr } = await publish(...flags)
  expect(code).toBe(2)
  expect(stderr.replace(/\s+/g, ' ')).toContain(wanted)
  expect(await redis.client.keys('*')).toEqual([])
})

test('flags of a key without the key, or with a file, are refused', async () => {
  expect((await cli(['publish', 'orders', 'sync', '--unique-mode', 'replace'])).code).toBe(2)
  expect((await cli(['publish', 'orders', '--file', '-', '--unique-key', 'u'])).code).toBe(2)
})

test('lines of a file say their own keys, and it is told how many jobs were there already', async () => {
  const lines = [
    { job: 'sync', data: 1, uniqueKey: 'a' },
    { job: 'sync', data: 2, uniqueKey: 'a' },
    { job: 'sync', data: 3, uniqueKey: 'a', unique: { mode: 'replace' } },
    { job: 'sync', data: 4 },
  ]
  const { code, stderr } = await cli(
    ['publish', 'orders', '--file', '-'],
    lines.map((line) => `${JSON.stringify(line)}\n`).join(''),
  )
  expect(code).toBe(0)
  expect(stderr).toContain('published 4 jobs to orders, of which 1 was there already and 1 replaced another,')
  expect((await redis.client.xrange('orders', '-', '+')).map(([, fields]) => fields[3])).toEqual(['1', '3', '4'])
})

test('a line whose key is none is told by its number, and ends the file', async () => {
  const { code, stderr } = await cli(['publish', 'orders', '--file', '-'], '{"job":"sync","uniqueKey":""}\n')
  expect(code).not.toBe(0)
  expect(stderr.replace(/\s+/g, ' ')).toContain('line 1')
  expect(stderr).toContain('expected `uniqueKey` to be a text of 1 to 256 characters, got 0')
})

test('explain says which key a job holds, and which job holds it now', async () => {
  const first = (await publish()).stdout.trim()
  expect((await cli(['explain', 'orders', first])).stdout).toContain('It holds the uniqueness key "u".')
  const second = (await publish('--unique-mode', 'replace')).stdout.trim()
  expect((await cli(['explain', 'orders', first])).stdout.replace(/\s+/g, ' ')).toContain(
    `It has the uniqueness key "u", which job ${second} holds now.`,
  )
  const json = JSON.parse((await cli(['explain', 'orders', second, '--json'])).stdout) as object
  expect(json).toMatchObject({ job: { unique: { key: 'u', holder: second } } })
})
