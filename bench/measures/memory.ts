import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import { connect } from '../contenders/stream.ts'
import { CONTENDERS } from '../contenders/contender.ts'
import { PAYLOAD_BYTES } from '../payload.ts'
import type { Group } from './measure.ts'
import type { Scale } from './scale.ts'

/** Redis frees what it kept for a client some time after it has gone. */
const SETTLE_MS = 300

export function memory(scale: Scale): Group {
  const jobs = scale.memoryJobs
  return {
    name: 'memory',
    note: `used_memory with ${jobs} waiting jobs less that of the empty server; ${PAYLOAD_BYTES} bytes of each are the payload`,
    rounds: scale.fewRounds,
    measures: [
      {
        name: 'memory',
        title: 'memory in Redis per waiting job',
        contenders: CONTENDERS,
        rows: [{ figure: 'bytesPerJob', title: 'memory in Redis per waiting job', unit: 'bytes', digits: 0 }],
        measure: async ({ redis: { url }, run }) => {
          const redis = connect(url)
          try {
            const before = await usedBytes(redis)
            await run({ step: 'publish', how: 'many', jobs, warmUpJobs: 0 })
            return { bytesPerJob: ((await usedBytes(redis)) - before) / jobs }
          } finally {
            redis.disconnect()
          }
        },
      },
    ],
  }
}

async function usedBytes(redis: Redis): Promise<number> {
  await sleep(SETTLE_MS)
  const used = /^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]
  if (used === undefined) throw new Error('expected INFO of Redis to say used_memory')
  return Number(used)
}
