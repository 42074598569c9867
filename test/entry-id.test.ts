import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compareIds, isEntryId, tallySlot, timeOf } from '../src/redis/entry-id.ts'
import { LESS } from '../src/redis/scripts/lua.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()
const MAX = 2n ** 64n - 1n
const half = fc.oneof(
  fc.bigInt(0n, MAX),
  fc.constantFrom(0n, 1n, 9n, 10n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, MAX - 1n, MAX),
)
const id = fc.tuple(half, half).map(([ms, seq]) => `${ms}-${seq}`)

/** The order of two ids by the numbers they are. */
function order(a: string, b: string): number {
  const [aMs = 0n, aSeq = 0n] = a.split('-').map(BigInt)
  const [bMs = 0n, bSeq = 0n] = b.split('-').map(BigInt)
  return aMs < bMs || (aMs === bMs && aSeq < bSeq) ? -1 : aMs === bMs && aSeq === bSeq ? 0 : 1
}

describe('the order of ids', () => {
  test('is that of their 64-bit halves', () => {
    fc.assert(
      fc.property(id, id, (a, b) => {
        expect(Math.sign(compareIds(a, b))).toBe(order(a, b))
        expect(compareIds(a, a)).toBe(0)
      }),
      { numRuns: 5000 },
    )
  })

  test('is the same in the scripts', async () => {
    const samples = fc.sample(fc.tuple(id, id), 500)
    const lua = `${LESS} local found = {}
      for i = 1, #ARGV, 2 do found[#found + 1] = less(ARGV[i], ARGV[i + 1]) and 1 or 0 end
      return found`
    const less = await redis.client.eval(lua, 0, ...samples.flat())
    expect(less).toEqual(samples.map(([a, b]) => (order(a, b) < 0 ? 1 : 0)))
  })

  test('is the one in which a stream gives its entries', async () => {
    const ids = [...new Set(fc.sample(id, 200))].filter((each) => each !== '0-0').sort(compareIds)
    for (const each of ids) await redis.client.xadd('orders', each, 'job', 'x')

    expect((await redis.client.xrange('orders', '-', '+')).map(([each]) => each)).toEqual(ids)
  })
})

describe('an entry id', () => {
  test('is any two halves of 64 bits', () => {
    fc.assert(fc.property(id, isEntryId))
  })

  test.each(['', '-', '1', '1-', '-1', '1-1-1', '1-*', '+', '1.5-0', ' 1-0', '1-0 ', '1-0\n', '٣-٠', '0x1-0', '1e3-0'])(
    'is not %j',
    (text) => expect(isEntryId(text)).toBe(false),
  )

  test.each([`${MAX + 1n}-0`, `0-${MAX + 1n}`, `99999999999999999999-0`, `${'1'.repeat(21)}-0`])(
    'is not beyond 64 bits: %s',
    (text) => expect(isEntryId(text)).toBe(false),
  )
})

describe('the time of an id', () => {
  test('is its first half', () => {
    expect(timeOf('1700000000123-7')).toBe(1_700_000_000_123)
  })

  test.each([
    ['0-1', '1970-01-01T00', 0],
    ['1700000000000-5', '2023-11-14T22', 13],
    ['1700003599999-0', '2023-11-14T23', 13],
    ['1709164800000-0', '2024-02-29T00', 0],
  ])('puts %s into the hour %s and its minute %i', (each, hour, minute) => {
    expect(tallySlot(each)).toMatchObject({ hour, minute })
  })

  test('of any id is in some hour, also far beyond the last date', () => {
    fc.assert(
      fc.property(id, (each) => {
        const { hour, minute } = tallySlot(each)
        expect(hour).toMatch(/^(\d{4}|\+\d{6})-\d\d-\d\dT\d\d$/)
        expect(minute).toBeGreaterThanOrEqual(0)
        expect(minute).toBeLessThan(60)
      }),
    )
  })

  test('is told apart from hour to hour, in any order', () => {
    const hours = ['0-0', '3600000-0', '0-0', '7200000-1', '3600000-0'].map((each) => tallySlot(each).hour)
    expect(hours.map((hour) => hour.slice(-2))).toEqual(['00', '01', '00', '02', '01'])
  })
})
