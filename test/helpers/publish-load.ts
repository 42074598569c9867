/** Producers that publish without end into a ledger, each in a way of its own. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import {
  Producer,
  PublishError,
  type BufferPriority,
  type Durability,
  type ProducerOptions,
  type ShedJob,
} from '../../src/index.ts'
import type { Ledger, Outcome } from './publish-ledger.ts'

/** Its own in each process: a port that was given up by one run may be another's a moment later, with producers that still look there. */
export const STREAM = `orders-${process.pid}`

export interface LoadOptions {
  readonly name: string
  readonly ledger: Ledger
  readonly producer: ProducerOptions<Durability>
  /** How long each publish may take, or each buffered job wait, in ms. */
  readonly timeoutMs: number
  /** How many are published at once, and how often. @default 5, every 5 ms */
  readonly atOnce?: number
  readonly everyMs?: number
  /** Follows the number in the payload. @default nothing */
  readonly padding?: string
  /** Of the nth job. @default the producer's */
  readonly priorityOf?: (number: number) => BufferPriority
}

/** What its publishers were told beside outcomes. */
export interface LoadCounts {
  shed: number
  replicated: number
  unreplicated: number
}

/** One producer after the other, and what each of its jobs was told. */
export class Load {
  readonly counts: LoadCounts = { shed: 0, replicated: 0, unreplicated: 0 }
  readonly #options: LoadOptions
  #opened: Opened
  #running: Promise<void> = Promise.resolve()
  #isStopped = false

  constructor(options: LoadOptions) {
    this.#options = options
    this.#opened = this.#open()
  }

  start(): this {
    this.#isStopped = false
    this.#running = this.#run()
    return this
  }

  /** Publishes no more; what was published goes on. */
  async stop(): Promise<void> {
    this.#isStopped = true
    await this.#running
  }

  async close(timeoutMs: number): Promise<void> {
    await this.#closeOne(this.#opened, timeoutMs)
  }

  /** Closes its producer, in the middle of whatever that does, and goes on with a new one. */
  async replace(timeoutMs: number): Promise<void> {
    const old = this.#opened
    this.#opened = this.#open()
    await this.#closeOne(old, timeoutMs)
  }

  /** One publish; resolves with its outcome, or with `buffered`, and never rejects. */
  async publish(): Promise<Outcome | 'buffered'> {
    const { ledger, timeoutMs, padding = '', priorityOf } = this.#options
    const { producer, lane, refs, shed } = this.#opened
    const number = ledger.push(lane, performance.now() + timeoutMs)
    const priority = priorityOf === undefined ? {} : { bufferPriority: priorityOf(number) }
    try {
      const result = await producer.publish('x', payloadOf(number, padding), { stream: STREAM, timeoutMs, ...priority })
      if (result.outcome === 'buffered') {
        if (shed.delete(number)) ledger.told(number, 'no')
        else this.#buffered(refs, 'ref' in result ? result.ref : '', number)
        return 'buffered'
      }
      if ('isReplicated' in result) this.counts[result.isReplicated ? 'replicated' : 'unreplicated'] += 1
      ledger.told(number, 'in', 'id' in result ? result.id : '')
      return 'in'
    } catch (error) {
      if (!(error instanceof PublishError)) throw error
      const published = error.published === 'no' ? 'no' : 'unknown'
      ledger.told(number, published)
      if (shed.delete(number) !== (error.code === 'ERR_PUBLISH_SHED')) ledger.violate(number, 'was shed in silence')
      return published
    }
  }

  /** An event may say what became of it before its publish has resolved here. */
  #buffered(refs: Opened['refs'], ref: string, number: number): void {
    const early = refs.get(ref)
    if (typeof early === 'string') {
      refs.delete(ref)
      this.#options.ledger.told(number, 'in', early)
    } else if (this.#options.ledger.outcomeOf(number) === undefined) refs.set(ref, number)
  }

  #open(): Opened {
    const { ledger, name, producer: options } = this.#options
    const isShedding = options.buffer?.whenFull === 'shed'
    const shed = new Set<number>()
    const onShed = ({ data, ref = '' }: ShedJob): void => {
      this.counts.shed += 1
      const number = numberOf(JSON.stringify(data))
      // Of a job that nobody awaits it is the only news; any other publish rejects as well.
      if (refs.delete(ref)) ledger.told(number, 'no')
      else shed.add(number)
    }
    const buffer = { ...options.buffer, ...(isShedding && { onShed }) }
    const producer = new Producer<Durability>({ logger: false, ...options, buffer })
    const refs: Opened['refs'] = new Map()
    producer.on('job:published', ({ ref, id }) => {
      const number = refs.get(ref)
      if (number === undefined) return void refs.set(ref, id)
      refs.delete(ref)
      if (typeof number === 'number') ledger.told(number, 'in', id)
    })
    producer.on('job:unpublished', ({ ref = '', data, published }) => {
      refs.delete(ref)
      ledger.told(numberOf(JSON.stringify(data)), published)
    })
    return { producer, lane: ledger.lane(name), refs, shed }
  }

  /** What is given back must be what its publisher was told. */
  async #closeOne({ producer }: Opened, timeoutMs: number): Promise<void> {
    const { unpublished } = await producer.close({ timeoutMs })
    for (const { data, published } of unpublished) {
      this.#options.ledger.agree(numberOf(JSON.stringify(data)), published)
    }
  }

  async #run(): Promise<void> {
    const { atOnce = 5, everyMs = 5 } = this.#options
    while (!this.#isStopped) {
      for (let at = 0; at < atOnce; at++) void this.publish()
      await sleep(everyMs)
    }
  }
}

interface Opened {
  readonly producer: Producer<Durability>
  readonly lane: number
  /** The numbers of buffered jobs without an outcome, or the ids of those that an event told of too early. */
  readonly refs: Map<string, number | string>
  /** Those that were shed and whose publish has not said so yet. */
  readonly shed: Set<number>
}

function payloadOf(number: number, padding: string): string {
  return `#${number} ${padding}`
}

function numberOf(payload: string): number {
  const digits = /^"#(\d+) /.exec(payload)?.[1]
  return digits === undefined ? -1 : Number(digits)
}

/** Has the ledger see which jobs are written to a connection; gives what ends it. */
export function watchSends(ledger: Ledger): () => void {
  const onCommand = (message: unknown): void => {
    const { command, args } = message as { command: string; args: readonly string[] }
    if (!command.startsWith('eval')) return
    for (const text of args) if (text.startsWith('"#')) ledger.sent(numberOf(text))
  }
  subscribe(SENDS, onCommand)
  return () => void unsubscribe(SENDS, onCommand)
}

/** What the client tells of each command that it writes, and of none that it cannot write. */
const SENDS = 'tracing:ioredis:command:start'

/** Tells the ledger of every entry after `from`; gives the last one's id. */
export async function readStream(client: Redis, ledger: Ledger, from = '0-0'): Promise<string> {
  let last = from
  for (;;) {
    const entries = await client.xrange(STREAM, `(${last}`, '+', 'COUNT', 5000)
    for (const [id, fields] of entries) {
      ledger.found(id, numberOf(fields[3] ?? ''))
      last = id
    }
    if (entries.length < 5000) return last
  }
}
