import { beforeEach, describe, expect, test } from 'vitest'
import { LanesIntake, type IntakeLane } from '../src/lanes-intake.ts'
import { WorkerNumbers } from '../src/metrics/worker-numbers.ts'
import { SOURCES, sourceKey } from '../src/redis/member.ts'
import { Slots } from '../src/slots.ts'
import { withRedis } from './helpers/redis.ts'

/** What is read for several streams before the jobs of the last read run, with dispatchers that are numbers alone. */

const redis = withRedis()
const member = (stream: string) => ({ stream, group: 'main', consumer: 'me' })

beforeEach(async () => {
  for (const stream of ['a', 'b']) {
    for (const source of SOURCES) {
      await redis.client.xgroup('CREATE', sourceKey(member(stream), source), 'main', '0', 'MKSTREAM')
    }
    for (let n = 0; n < 100; n++) await redis.client.xadd(stream, '*', 'job', 'x')
  }
})

/** An intake of the streams a, of weight 3, and b, whose jobs end at these paces. */
function intakeWith(paces: readonly [number, number]): LanesIntake {
  const slots = new Slots(8, 'weighted')
  const lanes = ['a', 'b'].map((stream, at) => {
    const numbers = { taken: 0, ready: 0, waiting: 0, claims: 0, leastAhead: 0, pace: paces[at] ?? 0, slotRoom: 8 }
    const dispatcher = {
      ...{ ...numbers, fetchRoom: 40, isPaused: false, isClosed: false },
      roomBeside: (coming: number) => (dispatcher.pace < coming ? 0 : 40 - coming),
      beginOne: () => {},
    }
    slots.add(dispatcher, { weight: at === 0 ? 3 : 1, concurrency: 8 })
    return {
      member: member(stream),
      parts: { dispatcher, numbers: new WorkerNumbers(stream, 'main', () => {}) },
    } as unknown as IntakeLane
  })
  return new LanesIntake(lanes, slots, () => {})
}

describe('a read beside what is coming', () => {
  test.each([
    ['of each stream is soon over', [30, 10], true],
    ['of the heavier stream may last', [14, 26], false],
    ['of the lighter stream may last', [36, 4], false],
  ] as const)('is of all streams, or of none: where what %s', async (_what, paces, isRead) => {
    const intake = intakeWith(paces)
    const { entries } = await intake.read(redis.client, { count: 20, blockMs: 100 })
    expect(entries.map(({ length }) => length).filter((length) => length > 0)).toEqual([15, 5])
    expect(intake.roomBeside() > 0).toBe(isRead)
  })
})
