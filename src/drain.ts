import { monotonicMs, sleep } from './clock.ts'
import { StoppingError } from './errors.ts'
import type { Fetcher } from './fetcher.ts'
import { handBack } from './hand-back.ts'
import type { Logger } from './logger.ts'
import type { Member } from './redis/member.ts'
import { leave } from './redis/stream.ts'
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
 * within `drainMs`; then its signal aborts, and what has not completed is handed back too. Outcomes are settled. Leases are
 * kept all the while, by a keeper that the caller stops afterwards; only then does the worker leave the group's list.
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
  return Promise.all(lanes.map(async (lane) => [lane, await drainLane(lane, { reading, untilMs })] as const))
}

/** Takes a worker off the lists of its streams. Its keeper must have ended: a pulse would write it in again. */
export async function leaveGroups(lanes: readonly Drained[]): Promise<void> {
  await Promise.all(lanes.map(leaveGroup))
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
  parts.batches.hurry()
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
