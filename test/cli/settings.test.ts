import { describe, expect, test } from 'vitest'
import { parseChanges } from '../../cli/commands/settings.ts'
import { exactDuration, parseDuration } from '../../cli/duration.ts'
import { similarTo } from '../../cli/similar.ts'
import { exactSize, parseSize, sizeText } from '../../cli/size.ts'
import { settingsKey } from '../../src/redis/keys.ts'
import { withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const settings = (...args: string[]) => millrace(['settings', ...args], { redis: redis.url })
const stored = () => redis.client.hgetall(settingsKey('orders'))

async function arrange(): Promise<void> {
  await redis.client.xadd('orders', '*', 'job', 'mail')
  for (const group of ['main', 'billing.eu']) await redis.client.xgroup('CREATE', 'orders', group, '0')
}

const rowsOf = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/))

describe('millrace settings', () => {
  test('shows all settings, what counts and what would count by default', async () => {
    await arrange()
    const { code, stdout, stderr } = await settings('orders')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(rowsOf(stdout)).toEqual([
      ['setting', 'value', 'default', 'set'],
      ['retention.age', '24h', '24h', 'no'],
      ['retention.bytes', '1GiB', '1GiB', 'no'],
      ['retention.entries', 'unlimited', 'unlimited', 'no'],
      ['dead.age', '30d', '30d', 'no'],
      ['backlog.max', 'unlimited', 'unlimited', 'no'],
      ['billing.eu.lease', '10s', '10s', 'no'],
      ['billing.eu.deliveries', '3', '3', 'no'],
      ['billing.eu.record', 'nothing', 'nothing', 'no'],
      ['main.lease', '10s', '10s', 'no'],
      ['main.deliveries', '3', '3', 'no'],
      ['main.record', 'nothing', 'nothing', 'no'],
    ])
  })

  test('changes what is given, shows it, and takes back what it shows', async () => {
    await arrange()
    const changes = [
      'retention.age=48h',
      'retention.bytes=2GiB',
      'retention.entries=1000000',
      'dead.age=60d',
      'backlog.max=5000',
    ]
    const { code, stdout } = await settings(
      'orders',
      ...changes,
      'billing.eu.lease=1500ms',
      'main.deliveries=5',
      'main.record=outcomes',
    )
    expect(code).toBe(0)
    const written = await stored()
    expect(written).toEqual({
      'retention:maxAgeMs': '172800000',
      'retention:maxBytes': '2147483648',
      'retention:maxEntries': '1000000',
      'dead:maxAgeMs': '5184000000',
      maxBacklog: '5000',
      'group:billing.eu:leaseMs': '1500',
      'group:main:maxDeliveries': '5',
      'group:main:record': 'outcomes',
    })
    const shown = rowsOf(stdout)
      .filter((row) => row[3] === 'yes')
      .map(([key, value]) => `${key}=${value}`)
    expect(shown).toHaveLength(8)
    await settings('orders', ...shown)
    expect(await stored()).toEqual(written)
  })

  test('goes back to a default with nothing, or with the word', async () => {
    await arrange()
    await settings('orders', 'retention.age=48h', 'retention.bytes=5MB', 'dead.age=1d', 'main.lease=20s')
    await settings('orders', 'retention.age=', 'retention.bytes=default', 'main.lease=')
    expect(await stored()).toEqual({ 'dead:maxAgeMs': '86400000', 'group:main:leaseMs': '10000' })
  })

  test('prints one document with --json', async () => {
    await arrange()
    const { stdout } = await settings('orders', 'retention.entries=5', '--json')
    expect(JSON.parse(stdout)).toMatchObject({
      schemaVersion: 1,
      stream: 'orders',
      retention: {
        maxEntries: { value: 5, default: null, isSet: true },
        maxAgeMs: { value: 86_400_000, isSet: false },
      },
      groups: [{ group: 'billing.eu' }, { group: 'main', leaseMs: { value: 10_000 } }],
    })
  })

  test.each([
    ['retention.ag=48h', 'unknown setting "retention.ag" (did you mean retention.age?)'],
    ['main.leese=10s', 'unknown setting "main.leese" (did you mean main.lease?)'],
    ['nothing=5', 'unknown setting "nothing" (there are: retention.age, '],
    ['retention.age', 'expected a change such as retention.age=48h, got "retention.age"'],
    ['=5', 'expected a change such as retention.age=48h'],
    ['retention.age=0s', 'expected `retention.age` to be a duration of 1s or more such as 1s, 2m or 1h'],
    ['retention.bytes=0', 'expected `retention.bytes` to be a size'],
    ['retention.bytes=2GX', 'expected `retention.bytes` to be a size'],
    ['backlog.max=0', 'expected `backlog.max` to be a positive integer up to 1000000000000, got 0'],
    ['backlog.max=1e3', 'expected `backlog.max` to be a positive integer'],
    ['backlog.maxx=5', 'unknown setting "backlog.maxx" (did you mean backlog.max?)'],
    ['retention.entries=0', 'expected `retention.entries` to be a positive integer'],
    ['main.lease=100ms', 'expected `main.lease` to be a duration of 500ms or more'],
    ['main.lease=2d', 'expected `main.lease` to be a duration'],
    ['main.deliveries=1001', 'expected `main.deliveries` to be a positive integer up to 1000'],
    ['bad group.lease=10s', 'expected a group name'],
    ['millrace.lease=10s', 'are reserved'],
  ])('refuses %s with 2, and changes nothing, not even what is right beside it', async (change, message) => {
    await arrange()
    const { code, stdout, stderr } = await settings('orders', 'dead.age=5d', change)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(/^error: [^\n]+\n$/)
    expect(stderr).toContain(message)
    expect(await stored()).toEqual({})
  })

  test('refuses a setting that is named twice, and a group or a stream that is not there', async () => {
    await arrange()
    expect(await settings('orders', 'dead.age=5d', 'dead.age=6d')).toMatchObject({ code: 2 })
    const unknown = await settings('orders', 'mian.lease=10s')
    expect(unknown).toMatchObject({ code: 4 })
    expect(unknown.stderr).toContain('did you mean main?')
    expect(await settings('mails', 'dead.age=5d')).toMatchObject({ code: 4 })
    expect(await settings('orders', '__proto__.lease=5s')).toMatchObject({ code: 2 })
    expect(await stored()).toEqual({})
  })

  test('has help with examples', async () => {
    const { stdout } = await millrace(['settings', '--help'])
    expect(stdout).toMatch(/Examples:\n {2}\$ millrace settings orders\n/)
    expect(stdout.match(/^ {2}(\w+|<group>)\.\w+(?= {2})/gm)).toHaveLength(8)
  })
})

describe('how settings are written', () => {
  test('a group may have a name like a part of a key', () => {
    expect(parseChanges(['retention.lease=1s', 'dead.deliveries=2', 'a.b.lease='])).toMatchObject({
      groups: { retention: { leaseMs: 1000 }, dead: { maxDeliveries: 2 }, 'a.b': { leaseMs: null } },
    })
  })

  test.each([
    ['500', 500],
    ['1KiB', 1024],
    ['1.5MiB', 1_572_864],
    ['2GB', 2e9],
    ['2gib', 2 ** 31],
    ['1TiB', 2 ** 40],
  ])('the size %s is %i bytes', (text, bytes) => expect(parseSize('--size', text)).toBe(bytes))

  test.each(['', '1.5.5', '-1', '1e9', '5XB', '9999999999999999', '2000TB'])('%j is no size', (text) => {
    expect(() => parseSize('--size', text)).toThrow('expected `--size` to be a size such as 500MB, 512MiB or 2GiB')
  })

  test.each([1, 1000, 1024, 1_500_000, 2 ** 20, 3 * 2 ** 30, 2 ** 40])(
    '%i bytes are shown so that they can be given again',
    (bytes) => expect(parseSize('--size', exactSize(bytes))).toBe(bytes),
  )

  test.each([1, 1500, 60_000, 86_400_000, 172_800_000, 259_200_000, 90_000_000])(
    '%i ms are shown so that they can be given again',
    (ms) => expect(parseDuration('--age', exactDuration(ms))).toBe(ms),
  )

  test('sizes are rounded for the eye', () => {
    expect([0, 1023, 12_595, 2 ** 30, 5e15].map(sizeText)).toEqual([
      '0 B',
      '1023 B',
      '12.3 KiB',
      '1.0 GiB',
      '4547.5 TiB',
    ])
  })

  test('a word is similar to one that differs in a third of its letters, and to no other', () => {
    expect(similarTo('lease', ['least', 'deliveries'])).toBe('least')
    expect(similarTo('xyz', ['lease', 'deliveries'])).toBeUndefined()
  })
})
