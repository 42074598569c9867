import type { Cancelled } from '../cancelled.ts'
import { monotonicMs } from '../clock.ts'
import type { Dispatcher } from '../dispatcher.ts'
import type { Executor } from '../executor.ts'
import type { Holdings } from '../holdings.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import type { Member } from '../redis/member.ts'
import { askTurns } from '../redis/turns.ts'
import type { ServerClock } from '../server-clock.ts'
import { Turns } from './turns.ts'

/** What a worker needs for jobs that are in order. */
export function assembleTurns(
  { connection, member, logger }: { connection: Connection; member: Member; logger: Logger },
  { holdings, cancelled, clock }: { holdings: Holdings; cancelled: Cancelled; clock: ServerClock },
  who: () => { dispatcher: Dispatcher; executor: Executor },
): Turns {
  return new Turns({
    ask: (source, asks) => askTurns(connection.client, member, source, asks),
    logger,
    serverMs: () => clock.at(monotonicMs()),
    isOurs: (delivery) => delivery.ended === undefined && holdings.awaits(delivery),
    isCancelled: ({ id }) => cancelled.has(id),
    onGranted: (delivery) => who().dispatcher.turned(delivery),
    onGone: (delivery) => who().executor.lose(delivery),
    onWait: (delivery, wait) => who().executor.defer(delivery, wait),
  })
}
