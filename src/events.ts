import { EVENT_CHANNELS } from './channels.ts'
import { messageOf, OptionError } from './errors.ts'
import { EVENTS, type EventName, type EventPayloads, type GroupEvent, type JobEvent } from './event-table.ts'
import type { Logger } from './logger.ts'
import { didYouMean, shown } from './options.ts'
import { QuietWarnings } from './quiet-warnings.ts'

/** What it returns is not used; a promise that it returns is not waited for. */
export type EventListener<Name extends EventName> = (payload: EventPayloads[Name]) => unknown

const NAMES = Object.keys(EVENTS) as EventName[]
/** More than this is a leak: somebody adds listeners in a loop, or with every request. */
const MANY_LISTENERS = 100

interface Registered {
  readonly listener: (payload: never) => unknown
  readonly isOnce: boolean
}

/**
 * Tells listeners what happens, and nothing that they do comes back: one that throws, or whose promise is rejected, is logged,
 * and neither the others nor the worker notice. An `error` without listeners is no more than any other event without.
 */
export class Events {
  /** Never changed in place: who is being told goes on with the list that it began with. */
  readonly #listeners = new Map<EventName, readonly Registered[]>()
  readonly #warned = new Set<EventName>()
  readonly #failures = new QuietWarnings()
  readonly #logger: Logger

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** @throws OptionError on an event that there is not, or a listener that is no function. */
  on<Name extends EventName>(name: Name, listener: EventListener<Name>): void {
    this.#add(name, { listener, isOnce: false })
  }

  /** The same, for the next time only. @throws OptionError as `on`. */
  once<Name extends EventName>(name: Name, listener: EventListener<Name>): void {
    this.#add(name, { listener, isOnce: true })
  }

  /** Takes back the last `on` or `once` of this listener, if there is one. @throws OptionError on an event that there is not. */
  off<Name extends EventName>(name: Name, listener: EventListener<Name>): void {
    const known = this.#listeners.get(checkEventName(name)) ?? []
    const found = known.findLast((one) => one.listener === listener)
    if (found !== undefined) this.#remove(name, found)
  }

  /** Whether anybody listens, here or on its channel. Asked for every job, before its payload is built. */
  has(name: EventName): boolean {
    return this.#listeners.has(name) || EVENT_CHANNELS[name].hasSubscribers
  }

  /** Tells those who listen, in the order in which they came, before it returns. Never throws. */
  emit<Name extends EventName>(name: Name, payload: EventPayloads[Name]): void {
    for (const registered of this.#listeners.get(name) ?? []) {
      // Removed before it is called, and looked for: its call may emit the same event.
      if (registered.isOnce && !this.#remove(name, registered)) continue
      this.#tell(name, registered.listener as EventListener<Name>, payload)
    }
    const channel = EVENT_CHANNELS[name]
    if (channel.hasSubscribers) channel.publish(payload)
  }

  #tell<Name extends EventName>(name: Name, listener: EventListener<Name>, payload: EventPayloads[Name]): void {
    try {
      const result = listener(payload)
      if (typeof result !== 'object' || result === null) return
      Promise.resolve(result).catch((error: unknown) => this.#failed(name, payload, error))
    } catch (error) {
      this.#failed(name, payload, error)
    }
  }

  #failed(name: EventName, payload: EventPayloads[EventName], error: unknown): void {
    const unsaid = this.#failures.due(name)
    if (unsaid === undefined) return
    const about = { ...idsOf(payload), event: name, failures: unsaid + 1, error: messageOf(error) }
    this.#logger.error(about, 'a listener failed; the job and the other listeners are not affected')
  }

  #add(name: EventName, registered: Registered): void {
    checkEventName(name)
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
  #remove(name: EventName, registered: Registered): boolean {
    const before = this.#listeners.get(name)
    if (before?.includes(registered) !== true) return false
    const left = before.filter((one) => one !== registered)
    if (left.length === 0) this.#listeners.delete(name)
    else this.#listeners.set(name, left)
    return true
  }
}

/** What tells where it happened; an event of a job says more than that, and may hold what a handler has thrown. */
function idsOf(payload: EventPayloads[EventName]): GroupEvent | JobEvent {
  const { stream, group } = payload
  if (!('entryId' in payload)) return { stream, group }
  const { id, job, attempt, deliveries, entryId } = payload
  return { stream, group, id, job, attempt, deliveries, entryId }
}

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

function checkEventName(name: unknown): EventName {
  const found = NAMES.find((known) => known === name)
  if (found !== undefined) return found
  const meant = typeof name === 'string' ? didYouMean(name, NAMES) : undefined
  const hint = meant === undefined ? `there are: ${NAMES.join(', ')}` : `did you mean ${meant}?`
  throw new OptionError(`unknown event ${shown(name)} (${hint})`)
}
