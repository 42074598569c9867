import type { WorkerCounts } from './counts.ts'
import type { Delivery } from './delivery.ts'
import { StoppingError } from './errors.ts'
import { jobEventOf, type Events } from './events.ts'
import type { Holdings } from './holdings.ts'
import type { Logger } from './logger.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'
import { SOURCES, type Member } from './redis/member.ts'
import { handBackAll } from './redis/stream.ts'

/** Whose deliveries are handed back. */
interface Holder {
  readonly parts: {
    readonly commands: Connection
    readonly holdings: Holdings
    readonly counts: WorkerCounts
    readonly events: Events
  }
  readonly member: Member
  readonly logger: Logger
}

/** Gives back what did not run, or did not end; a delivery that was counted for it is taken off the count again. */
export async function handBack(
  { parts: { commands, holdings, counts, events }, member, logger }: Holder,
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

function asHeld({ entryId, deliveries, fields, extra }: Delivery): {
  id: string
  deliveries: number
  newDeliveries: number
} {
  const before = fields === undefined ? deliveries : deliveries - 1
  return { id: entryId, deliveries, newDeliveries: Math.max(before, extra?.pastDeliveries ?? 0) }
}
