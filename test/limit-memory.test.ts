import { beforeEach, expect, test } from 'vitest'
import { limiterKey } from '../src/redis/keys.ts'
import { askForPermits, askForSlots, giveBack, renewHeld, type SlotAsk } from '../src/redis/limiting.ts'
import { onEnd } from './helpers/cleanup.ts'
import { withRedis } from './helpers/redis.ts'

/** Limits in a Redis that is out of memory: what runs is counted all the same, and little is written for it. */

const redis = withRedis()
const limiter = { name: 'one' }
const permit = { limiter, key: undefined, holder: 'me' }

const fill = () => redis.client.config('SET', 'maxmemory', '1')

beforeEach(() => onEnd(async () => void (await redis.client.config('SET', 'maxmemory', '0'))))

test('permits are taken, renewed and given back while Redis is out of memory: no other runs beside the one that has it', async () => {
  const key = limiterKey(limiter, 'permits', undefined)
  await askForPermits(redis.client, limiter, [{ ...permit, most: 1 }], 60_000)
  const takenUntilMs = Number(await redis.client.zscore(key, 'me'))
  await fill()
  await expect(redis.client.set('x', '1')).rejects.toThrow(/OOM/)

  expect(await renewHeld(redis.client, [permit], 120_000)).toEqual([])
  expect(Number(await redis.client.zscore(key, 'me'))).toBeGreaterThanOrEqual(takenUntilMs + 60_000)
  expect(await askForPermits(redis.client, limiter, [{ ...permit, holder: 'other', most: 1 }], 60_000)).toEqual([
    'none',
  ])
  await giveBack(redis.client, [permit])
  expect(await askForPermits(redis.client, limiter, [{ ...permit, holder: 'other', most: 1 }], 60_000)).toEqual([
    'taken',
  ])
})

test('slots are given while Redis is out of memory, and each is counted', async () => {
  const ask: SlotAsk = { key: 'a', costUs: 500_000, burstUs: 500_000, graceUs: 0, how: 'queue' }
  await fill()
  const { told } = await askForSlots(redis.client, limiter, [ask, ask, { ...ask, key: 'b' }], {
    mostMs: 1000,
    nearMs: 2000,
  })

  expect(told).toEqual([
    { kind: 'given', inMs: 0 },
    { kind: 'given', inMs: 500 },
    { kind: 'given', inMs: 0 },
  ])
  expect(await redis.client.info('errorstats')).not.toContain('WRONGTYPE')
})
