import { loadPeer } from '../peers.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { NAME, openBullMq, type BullMq } from './bullmq.ts'
import type { Timed } from './timed.ts'

/** BullMQ's job schedulers. */
export async function openBullMqTimed(url: string): Promise<Timed> {
  const { Queue } = (await loadPeer('bullmq')) as BullMq
  const { hostname, port } = new URL(url)
  const connection = { host: hostname, port: Number(port) }
  const queue = new Queue(NAME, { connection, defaultJobOptions: { removeOnComplete: true } })
  const contender = await openBullMq(url)
  return {
    setDaily: (name, at) => {
      const pattern = `${at.getUTCSeconds()} ${at.getUTCMinutes()} ${at.getUTCHours()} * * *`
      return queue.upsertJobScheduler(name, { pattern, tz: 'UTC' }, { name: JOB_NAME, data: PAYLOAD })
    },
    worker: (setup) => contender.worker(setup),
    close: async () => {
      await queue.close()
      await contender.close()
    },
  }
}
