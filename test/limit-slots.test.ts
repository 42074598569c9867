import { expect, test } from 'vitest'
import type { LimitOptions } from '../src/index.ts'
import { resolveLimits } from '../src/limits/limit.ts'
import type { Passage } from '../src/limits/passage.ts'
import { Slots } from '../src/limits/slots.ts'
import type { Connection } from '../src/redis/connection.ts'
import { withRedis } from './helpers/redis.ts'

/** The slots that a job gets which several rates count. */

const redis = withRedis()

/** A job that no worker has: what it is told is all that is looked at. */
function passageUnder(limits: LimitOptions[]): Passage {
  const tolls = resolveLimits(limits, ['x']).map((limit) => {
    return { limit, limiter: { name: limit.name ?? '' }, key: undefined, cost: 1 }
  })
  return { tolls, slot: undefined } as unknown as Passage
}

/** How long after its slot a job may begin, and by which limit that is; the slots of another job were taken before. */
async function second(limits: LimitOptions[]): Promise<{ forMs: number; by: string | undefined }> {
  const slots = new Slots({ client: redis.client } as Connection, () => {})
  const passages = [passageUnder(limits), passageUnder(limits)] as const
  for (const passage of passages) expect((await slots.take(passage)).kind).toBe('given')
  const { atMs = 0, untilMs = 0, limit } = passages[1].slot ?? {}
  return { forMs: untilMs - atMs, by: limit?.name }
}

const wide = { name: 'wide', rate: { jobs: 1000, perMs: 1000, burst: 40 } }
const narrow = { name: 'narrow', rate: { jobs: 4, perMs: 1000, burst: 2 } }

test.for([[wide, narrow], [narrow, wide], [narrow]])(
  'a job may be as late for its slot as the last of its rates allows: %j',
  async (limits) => {
    // The one of the other is over by then.
    expect(await second(limits)).toEqual({ forMs: expect.closeTo(100, 6) as number, by: 'narrow' })
  },
)

test('of two slots at the same time the rate that bears less lateness counts', async () => {
  const strict = { name: 'strict', rate: { jobs: 1000, perMs: 1000, burst: 120 } }
  const slack = { name: 'slack', rate: { jobs: 1000, perMs: 1000, burst: 200 } }

  // Less where the second answer was made a little later.
  expect((await second([slack, strict])).forMs).toBeLessThanOrEqual(60)
  expect((await second([strict, slack])).forMs).toBeLessThanOrEqual(60)
})
