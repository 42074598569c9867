import type { Contender, Publisher } from '../contenders/contender.ts'
import { PAYLOAD } from '../payload.ts'
import { expectCount } from './expect-count.ts'
import type { Figures, PublishHow } from './task.ts'

/** How many publishes are on their way at any time. */
const IN_FLIGHT = 500

/** Publishes, by the chosen way, into an empty Redis; all jobs must be there in the end. */
export async function publish(
  contender: Contender,
  { how, jobs, warmUpJobs }: { how: PublishHow; jobs: number; warmUpJobs: number },
): Promise<Figures> {
  const publisher = await contender.publisher({ isConcurrent: how === 'in-flight' })
  const run = WAYS[how]
  await run(publisher, warmUpJobs)
  const startedAtMs = performance.now()
  await run(publisher, jobs)
  const elapsedMs = performance.now() - startedAtMs
  expectCount('jobs in Redis after publishing', jobs + warmUpJobs, await contender.unsettled())
  await publisher.close()
  return { jobsPerSecond: (jobs / elapsedMs) * 1000 }
}

const WAYS: Readonly<Record<PublishHow, (publisher: Publisher, count: number) => Promise<void>>> = {
  many: (publisher, count) => publisher.publishMany(count),
  'in-flight': publishInFlight,
  awaited: publishAwaited,
}

/** Each lane publishes its next job when its last one is in Redis. */
async function publishInFlight(publisher: Publisher, count: number): Promise<void> {
  let left = count
  const lane = async () => {
    while (left > 0) {
      left -= 1
      await publisher.publish(PAYLOAD)
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane))
}

async function publishAwaited(publisher: Publisher, count: number): Promise<void> {
  for (let at = 0; at < count; at++) await publisher.publish(PAYLOAD)
}
