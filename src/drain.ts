import { monotonicMs, sleep } from './clock.ts'
import type { Delivery } from './delivery.ts'
import { StoppingError } from './errors.ts'
import { jobEventOf } from './events.ts'
import type { Fetcher } from './fetcher.ts'
import type { Logger } from './logger.ts'
import { faultText } from './redis/faults.ts'
import { SOURCES, type Member } from './redis/member.ts'
import { handBackAll, leave } from './redis/stream.ts'
import type { WorkerParts } from './worker-parts.ts'

/** What a stop left. */
export interface StopResult {
  /** Jobs that were given back to the group, at no cost to their deliveries. */
  readonly handedBack: number
  /** Outcomes that Redis would not take in time; these jobs run again. */
  readonly unsettled: number
}

/** What a drain is of: one stream of a worker. */
interface Drained {
  readonly parts: WorkerParts
  readonly member: Member
  readonly logger: Logger
}

/** Between the abort of the running handlers and the hand-back of those that did not heed it. */
const ABORT_GRACE_MS = 250
/** How long outcomes may take to be settled, beyond the drain. */
const SETTLE_MS = 5000

/**
 * Ends a worker's work, step by step: no new reads; what was only prefetched is handed back at once; what runs may finish
 * within `drainMs`; then its signal aborts, and what has not completed is handed back too. Outcomes are settled, and the
 * worker leaves the group's list. Leases are kept all the while, by a keeper that the caller stops afterwards.
 *
 * @returns what it left, by stream.
 */
export async function drain<Lane extends Drained>(
  lanes: readonly Lane[],
  fetcher: Fetcher,
  drainMs: number,
): Promise<(readonly [Lane, StopResult])[]> {
  const untilMs = monotonicMs() + drainMs
  const reading = fetcher.stop()
  const results = await Promise.all(
    lanes.map(async (lane) => [lane, await drainLane(lane, { reading, untilMs })] as const),
  )
  // Not before all are drained: the keeper pulses for every stream until then, and would write the worker in again.
  await Promise.all(lanes.map(leaveGroup))
  return results
}

async function leaveGroup({ parts: { commands }, member }: Drained): Promise<void> {
  if (commands.isReady) await leave(commands.client, member).catch(() => {})
}

async function drainLane(
  lane: Drained,
  { reading, untilMs }: { reading: Promise<void>; untilMs: number },
): Promise<StopResult> {
  const { parts, member } = lane
  const { dispatcher, holdings, settler, claimer, scheduler, cron, trimmer } = parts
  await Promise.all([reading, ...[claimer, scheduler, cron, trimmer].map((part) => part.stop())])
  const unstarted = await dispatcher.close(1000)
  let handedBack = await handBack(lane, unstarted)
  while (dispatcher.running > 0 && monotonicMs() < untilMs) await sleep(5)
  if (dispatcher.running > 0) {
    for (const delivery of holdings.running()) delivery.end(new StoppingError(member.stream, delivery.id))
    const graceMs = monotonicMs() + ABORT_GRACE_MS
    while (dispatcher.running > 0 && monotonicMs() < graceMs) await sleep(5)
  }
  const unended = holdings.running()
  handedBack += await handBack(lane, unended)
  for (const delivery of holdings.underWay()) delivery.traced?.end('overdue', delivery.ended)
  await parts.limiter?.stop()
  const unsettled = await settler.stop(SETTLE_MS)
  parts.numbers.abandoned += unstarted.length + unended.length - handedBack + unsettled
  return { handedBack, unsettled }
}

/** Gives back what did not run, or did not end; a delivery that was counted for it is taken off the count again. */
export async function handBack(
  { parts: { commands, holdings, counts, events }, member, logger }: Drained,
  deliveries: readonly Delivery[],
): Promise<number> {
  let handed = 0
  // Before the first of them is another's: a keeper's round that comes in between would tell it as lost.
  for (const delivery of deliveries) delivery.end(new StoppingError(member.stream, delivery.id))
  for (const source of SOURCES) {
    const given = deliveries.filter((delivery) => delivery.source === source)
    const held = given.map(asHeld)
    if (held.length === 0) continue
    const returned = await handBackAll(commands.client, member, source, held).catch((error: unknown) => {
      const about = { jobs: held.length, fault: faultText(error) }
      logger.warn(about, 'could not hand back; these jobs are claimed when their lease is over')
      return 0
    })
    handed += returned
    // Redis tells how many: where some were no longer ours, nobody knows which.
    if (returned === given.length && events.has('job:handed-back')) {
      for (const delivery of given) events.emit('job:handed-back', jobEventOf(delivery))
    }
  }
  for (const delivery of deliveries) {
    if (delivery.startedAtMs > 0) delivery.count('handed_back')
    delivery.traced?.end('handed-back')
    if (delivery.startedAtMs === 0) holdings.release(delivery)
    else holdings.abandon(delivery)
  }
  counts.handedBack += handed
  return handed
}

function asHeld({ entryId, deliveries, fields }: Delivery): { id: string; deliveries: number; newDeliveries: number } {
  return { id: entryId, deliveries, newDeliveries: fields === undefined ? deliveries : deliveries - 1 }
}
