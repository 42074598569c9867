import { channel, tracingChannel, type Channel } from 'node:diagnostics_channel'
import { EVENTS, type JobEvent } from './event-table.ts'
import { PRODUCER_EVENTS } from './producer-events.ts'

/**
 * What happens in this process, for tools that are not handed a worker or a producer: channels of node:diagnostics_channel, of
 * all workers and producers together. While nobody has subscribed to one, nothing is built or called for it. Held here, since
 * a channel that nobody holds is collected with its subscribers.
 *
 * What a subscriber throws is no matter of ours: Node reports it as an uncaught exception, after the job went on.
 */

/** A channel for each event of a table. */
export type Channels<Name extends string> = Readonly<Record<Name, Channel>>

/** `millrace:<event>`: every event of every worker, after its listeners were told. */
export const EVENT_CHANNELS = channelsOf(EVENTS)

/** The same, of every producer. */
export const PRODUCER_EVENT_CHANNELS = channelsOf(PRODUCER_EVENTS)

/** What is said of a publish: never the payload. */
export interface PublishMessage {
  readonly stream: string | undefined
  readonly job: string
  readonly isMany: boolean
}

/** `tracing:millrace:publish:…`: from a publish, a `publishMany` or a `job.publish` to when it is known what became of it. */
export const publishChannel = tracingChannel<unknown, PublishMessage>('millrace:publish')

/** `tracing:millrace:process:…`: from the call of a handler to its end. */
export const runChannel = tracingChannel<unknown, JobEvent>('millrace:process')

function channelsOf<Name extends string>(table: Readonly<Record<Name, unknown>>): Channels<Name> {
  const names = Object.keys(table) as Name[]
  return Object.fromEntries(names.map((name) => [name, channel(`millrace:${name}`)])) as Channels<Name>
}
