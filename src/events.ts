import type { Channels } from './channels.ts'
import { messageOf, OptionError } from './errors.ts'
import type { EventName, EventPayloads, GroupEvent, JobEvent } from './event-table.ts'
import type { Logger } from './logger.ts'
import { didYouMean, shown } from './options.ts'
import type { ProducerEventName, ProducerEventPayloads } from './producer-events.ts'
import { QuietWarnings } from './quiet-warnings.ts'

/** What it returns is not used; a promise that it returns is not waited for. */
export type EventListener<Name extends EventName> = (payload: EventPayloads[Name]) => unknown

/** The same, of a producer's events. */
export type ProducerEventListener<Name extends ProducerEventName> = (payload: ProducerEventPayloads[Name]) => unknown

/** The names of a table of payloads, by event. */
type NameOf<Payloads> = keyof Payloads & string
type Listener<Payload> = (payload: Payload) => unknown

/** More than this is a leak: somebody adds listeners in a loop, or with every request. */
const MANY_LISTENERS = 100

interface Registered {
  readonly listener: (payload: never) => unknown
  readonly isOnce: boolean
}

/**
 * Tells listeners what happens, and nothing that they do comes back: one that throws, or whose promise is rejected, is logged,
 * and neither the others nor the worker or producer notice. An `error` without listeners is no more than any other event without.
 */
export class Events<Payloads extends object = EventPayloads> {
  /** Never changed in place: who is being told goes on with the list that it began with. */
  readonly #listeners = new Map<NameOf<Payloads>, readonly Registered[]>()
  readonly #warned = new Set<NameOf<Payloads>>()
  readonly #failures = new QuietWarnings()
  readonly #logger: Logger
  readonly #channels: Channels<NameOf<Payloads>>
  readonly #names: readonly NameOf<Payloads>[]

  /** There are the events that have a channel. */
  constructor(logger: Logger, channels: Channels<NameOf<Payloads>>) {
    this.#logger = logger
    this.#channels = channels
    this.#names = Object.keys(channels) as NameOf<Payloads>[]
  }

  /** @throws OptionError on an event that there is not, or a listener that is no function. */
  on<Name extends NameOf<Payloads>>(name: Name, listener: Listener<Payloads[Name]>): void {
    this.#add(name, { listener, isOnce: false })
  }

  /** The same, for the next time only. @throws OptionError as `on`. */
  once<Name extends NameOf<Payloads>>(name: Name, listener: Listener<Payloads[Name]>): void {
    this.#add(name, { listener, isOnce: true })
  }

  /** Takes back the last `on` or `once` of this listener, if there is one. @throws OptionError on an event that there is not. */
  off<Name extends NameOf<Payloads>>(name: Name, listener: Listener<Payloads[Name]>): void {
    const known = this.#listeners.get(this.#check(name)) ?? []
    const found = known.findLast((one) => one.listener === listener)
    if (found !== undefined) this.#remove(name, found)
  }

  /** Whether anybody listens, here or on its channel. Asked for every job, before its payload is built. */
  has(name: NameOf<Payloads>): boolean {
    return this.#listeners.has(name) || this.#channels[name].hasSubscribers
  }

  /** Tells those who listen, in the order in which they came, before it returns. Never throws. */
  emit<Name extends NameOf<Payloads>>(name: Name, payload: Payloads[Name]): void {
    for (const registered of this.#listeners.get(name) ?? []) {
      // Removed before it is called, and looked for: its call may emit the same event.
      if (registered.isOnce && !this.#remove(name, registered)) continue
      this.#tell(name, registered.listener as Listener<Payloads[Name]>, payload)
    }
    const channel = this.#channels[name]
    if (channel.hasSubscribers) channel.publish(payload)
  }

  #tell<Name extends NameOf<Payloads>>(name: Name, listener: Listener<Payloads[Name]>, payload: Payloads[Name]): void {
    try {
      const result = listener(payload)
      if (typeof result !== 'object' || result === null) return
      Promise.resolve(result).catch((error: unknown) => this.#failed(name, payload, error))
    } catch (error) {
      this.#failed(name, payload, error)
    }
  }

  #failed(name: NameOf<Payloads>, payload: unknown, error: unknown): void {
    const unsaid = this.#failures.due(name)
    if (unsaid === undefined) return
    const about = { ...idsOf(payload), event: name, failures: unsaid + 1, error: messageOf(error) }
    this.#logger.error(about, 'a listener failed; the job and the other listeners are not affected')
  }

  #add(name: NameOf<Payloads>, registered: Registered): void {
    this.#check(name)
    if (typeof registered.listener !== 'function') {
      throw new OptionError(`expected the listener of ${name} to be a function, got ${shown(registered.listener)}`)
    }
    const listening = [...(this.#listeners.get(name) ?? []), registered]
    this.#listeners.set(name, listening)
    if (listening.length <= MANY_LISTENERS || this.#warned.has(name)) return
    this.#warned.add(name)
    this.#logger.warn(
      { event: name, listeners: listening.length },
      'an event has many listeners: are they added again and again, and never taken off?',
    )
  }

  /** Whether it was there. Without listeners the event is not in the map: `has` is to be as cheap as it can be. */
  #remove(name: NameOf<Payloads>, registered: Registered): boolean {
    const before = this.#listeners.get(name)
    if (before?.includes(registered) !== true) return false
    const left = before.filter((one) => one !== registered)
    if (left.length === 0) this.#listeners.delete(name)
    else this.#listeners.set(name, left)
    return true
  }

  #check(name: unknown): NameOf<Payloads> {
    const found = this.#names.find((known) => known === name)
    if (found !== undefined) return found
    const meant = typeof name === 'string' ? didYouMean(name, this.#names) : undefined
    const hint = meant === undefined ? `there are: ${this.#names.join(', ')}` : `did you mean ${meant}?`
    throw new OptionError(`unknown event ${shown(name)} (${hint})`)
  }
}

/** What tells where it happened; a payload says more than that, and may hold what a handler has thrown, or a job's data. */
function idsOf(payload: unknown): Record<string, unknown> {
  const given = payload as Record<string, unknown>
  return Object.fromEntries(ID_FIELDS.filter((field) => field in given).map((field) => [field, given[field]]))
}

const ID_FIELDS = ['stream', 'group', 'id', 'job', 'ref', 'attempt', 'deliveries', 'entryId', 'file']

/** What every event of a job says of it. */
export function jobEventOf({ stream, group, id, name, attempt, deliveries, entryId }: DeliveredJob): JobEvent {
  return { stream, group, id, job: name, attempt, deliveries, entryId }
}

interface DeliveredJob extends GroupEvent {
  readonly id: string
  readonly name: string
  readonly attempt: number
  readonly deliveries: number
  readonly entryId: string
}

/** The same logger, whose errors are told as events too: what a worker cannot do must not be seen in a log alone. */
export function tellingErrors(logger: Logger, events: Events, { stream, group }: GroupEvent): Logger {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error(fields, message) {
      logger.error(fields, message)
      if (!events.has('error')) return
      const fault: unknown = (fields as { fault?: unknown }).fault
      const text = typeof fault === 'string' ? `${message}: ${fault}` : message
      events.emit('error', { stream, group, error: new Error(text) })
    },
  }
}
