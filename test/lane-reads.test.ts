import { describe, expect, test } from 'vitest'
import { faultOf } from '../src/redis/faults.ts'
import { readWithin } from '../src/redis/lanes.ts'
import { sourceKey } from '../src/redis/member.ts'
import { withRedis } from './helpers/redis.ts'

/** The one read of what is there on several streams: who gets how much of it. */

const redis = withRedis()
const member = (stream: string) => ({ stream, group: 'main', consumer: 'me' })

/** So many entries in the stream, and in its redelivery stream. */
async function have(stream: string, counts: readonly [number, number]): Promise<void> {
  for (const source of [0, 1] as const) {
    const key = sourceKey(member(stream), source)
    await redis.client.xgroup('CREATE', key, 'main', '0', 'MKSTREAM')
    for (let n = 0; n < counts[source]; n++) await redis.client.xadd(key, '*', 'job', 'x')
  }
}

/** How many came of each stream and its redelivery stream. */
async function read(
  asked: readonly (readonly [stream: string, quota: number, want: number])[],
  within: { total: number; turn?: 0 | 1 },
) {
  const lanes = asked.map(([stream, quota, want]) => ({ member: member(stream), quota, want }))
  const reads = await readWithin(redis.client, lanes, { turn: 0, ...within })
  return reads.map(({ isShort, fault, entries: [stream, redelivered] }) => ({
    came: [stream.length, redelivered.length],
    isShort,
    fault: fault && faultOf(fault).word,
  }))
}

const came = (counts: [number, number], isShort = false) => ({ came: counts, isShort, fault: undefined })

describe('a read of what is there', () => {
  test('is shared by a stream and its redelivery stream, and an odd one goes to each in turn', async () => {
    await have('a', [10, 10])
    expect(await read([['a', 4, 4]], { total: 4 })).toEqual([came([2, 2])])
    expect(await read([['a', 1, 1]], { total: 1, turn: 0 })).toEqual([came([1, 0])])
    expect(await read([['a', 1, 1]], { total: 1, turn: 1 })).toEqual([came([0, 1])])
  })

  test('is left to either of them where the other has too few', async () => {
    await have('a', [0, 5])
    await have('b', [5, 1])
    expect(await read([['a', 4, 4]], { total: 4 })).toEqual([came([0, 4])])
    expect(await read([['b', 4, 4]], { total: 4 })).toEqual([came([3, 1])])
    expect(await read([['a', 4, 4]], { total: 4 })).toEqual([came([0, 1], true)])
  })

  test('goes by quotas first, and what one leaves is for those that want more', async () => {
    await have('a', [10, 0])
    await have('b', [1, 0])
    const asked = [['a', 2, 10] as const, ['b', 6, 10] as const]
    expect(await read(asked, { total: 8 })).toEqual([came([7, 0]), came([1, 0], true)])
  })

  test('brings no more than the total, and says nothing of a stream that was not reached', async () => {
    await have('a', [10, 0])
    await have('b', [10, 0])
    const asked = [['a', 10, 10] as const, ['b', 10, 10] as const]
    expect(await read(asked, { total: 4 })).toEqual([came([4, 0]), came([0, 0])])
  })

  test('is not stopped by a stream of another type, or without its group', async () => {
    await redis.client.set('a', 'text')
    await have('b', [3, 0])
    const asked = [['a', 2, 2] as const, ['gone', 2, 2] as const, ['b', 2, 9] as const]
    expect(await read(asked, { total: 6 })).toMatchObject([
      { came: [0, 0], fault: 'NOGROUP' },
      { came: [0, 0], fault: 'NOGROUP' },
      { came: [3, 0], fault: undefined },
    ])
    await redis.client.xgroup('CREATE', sourceKey(member('a'), 1), 'main', '0', 'MKSTREAM')
    expect(await read([['a', 2, 2]], { total: 2 })).toMatchObject([{ fault: 'WRONGTYPE' }])
  })
})
