import { randomUUID } from 'node:crypto'
import { PublishError, type Durability, type Producer, type ReplicaDurability } from 'millrace'
import type { ClientConfig, Pool } from 'pg'
import { backoffMs, pause } from './pause.ts'
import { releaseRows, removeRows, setRowsAside, takeRows, type Row } from './rows.ts'
import { Wakeups } from './wakeups.ts'

export interface RelayOptions {
  /** Where the outbox is. Its queries need a timeout of their own: see main.ts. */
  readonly pool: Pool
  /** What publishes. The relay leaves it open when it stops. */
  readonly producer: Producer<Durability>
  /** How the connection is made that hears of new rows; without it they are found within `pollMs`. @default none */
  readonly listen?: ClientConfig
  /** Most rows at a time. @default 500 */
  readonly maxRows?: number
  /** Most bytes of payload at a time; one row alone may be larger. @default 8388608 */
  readonly maxBytes?: number
  /** How long to wait before looking again where nothing was found and nobody wakes the relay, in ms. @default 1000 */
  readonly pollMs?: number
  /**
   * When a row may go: as soon as Redis has its job, or once as many replicas have it. Never with the buffer of a process.
   * @default 'redis'
   */
  readonly durability?: 'redis' | ReplicaDurability
  /** How long a publish may take, in ms. @default 10000 */
  readonly timeoutMs?: number
  /** How long rows are a relay's: those of one that was killed go to another after that, in ms. @default 30000 */
  readonly leaseMs?: number
  /** How long Redis remembers what was published, in ms, 60000 to 90 days. @default 86400000 */
  readonly tokenTtlMs?: number
  /** Told what went wrong and is tried again, and of rows that were set aside. @default a line to stderr */
  readonly report?: (problem: string, error?: unknown) => void
}

/** What a relay has done since it was made. */
export interface RelayCounts {
  /** Rows whose jobs are in Redis by this relay. */
  published: number
  /** Rows whose jobs were there already: somebody published them and could not remove the rows. */
  duplicates: number
  /** Rows that were moved to outbox_failed. */
  setAside: number
  /** Times that a row could not be published and was given back. */
  givenBack: number
}

/** What became of one row. */
export type Fate =
  | { readonly kind: 'published' | 'duplicate' }
  | { readonly kind: 'set aside'; readonly reason: string }
  /** Not in Redis, or perhaps: to be tried again, which its token makes safe. */
  | { readonly kind: 'later'; readonly isUntouched: boolean; readonly error: unknown }

/**
 * Publishes the rows of the outbox, in their order, each once, and removes them. Any number of relays may run at once.
 *
 * A row is taken, published under its id as idempotency token, and removed: three steps, each of which may be the last. A
 * relay that dies after the first leaves a row that another takes when the lease is over; after the second, that one is
 * answered with the job that is there already. Only Redis's memory of the token ends: a row that may have been published
 * longer ago than that is set aside, not published.
 */
export class OutboxRelay {
  readonly #options: Required<Omit<RelayOptions, 'listen'>>
  readonly #id = randomUUID()
  readonly #counts: RelayCounts = { published: 0, duplicates: 0, setAside: 0, givenBack: 0 }
  readonly #wakeups: Wakeups | undefined
  readonly #stopping = new AbortController()
  /** Streams that could not be published to: they wait, and the rows of others go on. */
  readonly #failing = new Map<string, { tries: number; untilMs: number }>()
  #tries = 0
  #isWoken = false
  #wake: () => void = () => {}
  #running: Promise<void> | undefined

  /** @throws RangeError on a number that is impossible, and on times that contradict each other. */
  constructor(options: RelayOptions) {
    const { listen, ...rest } = options
    this.#options = { ...DEFAULTS, ...rest }
    checkNumbers(this.#options)
    const woken = () => ((this.#isWoken = true), this.#wake())
    const failed = (error: unknown) =>
      this.#options.report('cannot listen for new rows now; they are polled for', error)
    this.#wakeups = listen && new Wakeups(listen, { wake: woken, failed })
  }

  get counts(): Readonly<RelayCounts> {
    return { ...this.#counts }
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Takes no more rows, and ends when those at hand have their answer, after `timeoutMs` at most. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#wake()
    await Promise.all([this.#running, this.#wakeups?.stop()])
  }

  /** Takes rows once, publishes them and removes them. @returns how many it took. */
  async runOnce(): Promise<number> {
    const { pool, maxRows, maxBytes, leaseMs, timeoutMs, tokenTtlMs } = this.#options
    // It is published within the lease, or by the time that its answer is given up for.
    const rememberedMs = tokenTtlMs - leaseMs - timeoutMs
    const taking = { relay: this.#id, without: this.#waiting(), maxRows, maxBytes, leaseMs, rememberedMs }
    const rows = await takeRows(pool, taking)
    if (rows.length === 0) return 0
    const fates = await Promise.all(rows.map((row) => this.#publish(row)))
    this.#remember(rows, fates)
    await this.#settle(rows.map((row, at) => ({ ...row, fate: fates[at] as Fate })))
    return rows.length
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    this.#wakeups?.start()
    while (!signal.aborted) {
      try {
        this.#isWoken = false
        const taken = await this.runOnce()
        this.#tries = 0
        if (taken === 0) await this.#idle()
      } catch (error) {
        this.#options.report('the outbox cannot be reached now; trying again', error)
        await pause(backoffMs(this.#tries++), signal)
      }
    }
  }

  /** Until there may be something to do. */
  async #idle(): Promise<void> {
    // Those whose time was up have no rows left.
    const nowMs = performance.now()
    for (const [stream, { untilMs }] of this.#failing) if (untilMs <= nowMs) this.#failing.delete(stream)
    if (this.#isWoken || this.#stopping.signal.aborted) return
    const untilMs = Math.min(...[...this.#failing.values()].map((stream) => stream.untilMs))
    const awake = new AbortController()
    this.#wake = () => awake.abort()
    await pause(Math.max(1, Math.min(this.#options.pollMs, untilMs - nowMs)), awake.signal)
    this.#wake = () => {}
  }

  async #publish(row: Row): Promise<Fate> {
    if (row.isForgotten) return { kind: 'set aside', reason: FORGOTTEN }
    const { producer, durability, timeoutMs, tokenTtlMs } = this.#options
    try {
      const result = await producer.publish(row.job, JSON.parse(row.data) as unknown, {
        stream: row.stream,
        durability,
        timeoutMs,
        signal: this.#stopping.signal,
        idempotencyToken: `outbox:${row.id}`,
        tokenTtlMs,
        ...(row.runAt !== null && { runAt: row.runAt }),
        ...(row.version !== null && { version: row.version }),
      })
      if ('isReplicated' in result && !result.isReplicated) return { kind: 'later', isUntouched: false, error: TOO_FEW }
      return { kind: result.outcome === 'duplicate' ? 'duplicate' : 'published' }
    } catch (error) {
      return fateOf(row, error)
    }
  }

  /** Which streams are to be left alone, and for how long. */
  #remember(rows: readonly Row[], fates: readonly Fate[]): void {
    const failed = new Map<string, unknown>()
    const seen = new Set<string>()
    rows.forEach(({ stream }, at) => {
      const fate = fates[at] as Fate
      if (fate.kind === 'later') failed.set(stream, fate.error)
      else seen.add(stream)
    })
    for (const stream of seen) this.#failing.delete(stream)
    for (const [stream, error] of failed) {
      const { tries } = this.#failing.get(stream) ?? { tries: 0 }
      this.#failing.set(stream, { tries: tries + 1, untilMs: performance.now() + backoffMs(tries) })
      if (!this.#stopping.signal.aborted) this.#options.report(`cannot publish to ${stream} now; trying again`, error)
    }
  }

  #waiting(): string[] {
    const nowMs = performance.now()
    return [...this.#failing].filter(([, { untilMs }]) => untilMs > nowMs).map(([stream]) => stream)
  }

  /** Tells the outbox what became of its rows. What it is not told, for it is away, is found out by publishing again. */
  async #settle(rows: readonly (Row & { fate: Fate })[]): Promise<void> {
    const { pool, report } = this.#options
    const counts = this.#counts
    const [done, aside, later]: [Row[], (Row & { reason: string })[], (Row & { isUntouched: boolean })[]] = [[], [], []]
    for (const { fate, ...row } of rows) {
      if (fate.kind === 'set aside') aside.push({ ...row, reason: fate.reason })
      else if (fate.kind === 'later') later.push({ ...row, isUntouched: fate.isUntouched })
      else done.push(row)
      if (fate.kind === 'published') counts.published += 1
      if (fate.kind === 'duplicate') counts.duplicates += 1
    }
    if (done.length > 0) await removeRows(pool, done)
    if (aside.length > 0) await setRowsAside(pool, aside)
    for (const { id, stream, reason } of aside) report(`row ${id} for ${stream} was set aside: ${reason}`)
    counts.setAside += aside.length
    if (later.length > 0) await releaseRows(pool, this.#id, later)
    counts.givenBack += later.length
  }
}

/**
 * What a failed publish means for its row. What comes from the row itself fails however often it is tried; all else may
 * pass: Redis is away, full, or refuses us for now.
 */
export function fateOf(row: Pick<Row, 'isFirst' | 'runAt'>, error: unknown): Fate {
  const code = (error as { code?: unknown } | undefined)?.code
  const isRow = code === 'ERR_PAYLOAD' || code === 'ERR_NAME' || (code === 'ERR_OPTION' && row.runAt !== null)
  if (isRow) return { kind: 'set aside', reason: textOf(error) }
  const isUntouched = row.isFirst && error instanceof PublishError && error.published === 'no'
  return { kind: 'later', isUntouched, error }
}

/** An error's message holds no payload, neither PostgreSQL's nor millrace's; other properties of it may. */
function textOf(error: unknown): string {
  return error instanceof Error ? error.message : 'something that is no error was thrown'
}

/** Tokens must outlive a lease and a publish by far: rows that are older than the rest are set aside. */
function checkNumbers(options: Required<Omit<RelayOptions, 'listen'>>): void {
  for (const name of ['maxRows', 'maxBytes', 'pollMs', 'timeoutMs', 'leaseMs', 'tokenTtlMs'] as const) {
    const value = options[name]
    if (Number.isSafeInteger(value) && value > 0) continue
    throw new RangeError(`expected \`${name}\` to be a positive integer, got ${value}`)
  }
  const { timeoutMs, leaseMs, tokenTtlMs } = options
  if (leaseMs < 2 * timeoutMs) throw new RangeError('expected `leaseMs` to be at least twice `timeoutMs`')
  if (tokenTtlMs < 60_000 || tokenTtlMs > 90 * 86_400_000 || tokenTtlMs < 4 * leaseMs) {
    throw new RangeError('expected `tokenTtlMs` to be 60000 to 90 days, and at least four times `leaseMs`')
  }
}

const FORGOTTEN =
  'it may be in Redis already, since longer ago than Redis remembers: see whether it is before you publish it'

const TOO_FEW = new Error('Redis has its jobs, but not as many replicas as were asked for')

const DEFAULTS = {
  durability: 'redis' as const,
  maxRows: 500,
  maxBytes: 8 * 1024 * 1024,
  pollMs: 1_000,
  timeoutMs: 10_000,
  leaseMs: 30_000,
  tokenTtlMs: 86_400_000,
  report: (problem: string, error?: unknown) => {
    const why = error === undefined ? '' : `: ${textOf(error)}`
    process.stderr.write(`outbox: ${problem}${why}\n`)
  },
}
