import { monotonicMs, sleep } from './clock.ts'
import type { WorkerCounts } from './counts.ts'
import type { Logger } from './logger.ts'
import type { Connection } from './redis/connection.ts'
import { purgeExpired } from './redis/dead.ts'
import { faultText } from './redis/faults.ts'
import { sourceKey, type Member } from './redis/member.ts'
import { retainStep, trimStep, type Bounds, type Trimmed } from './redis/trimming.ts'

/**
 * Retention: removes what every group has settled and nobody wants to keep, in small steps. The stream keeps its history for
 * as long as its settings say; the redelivery stream holds copies, which go as soon as they are settled; dead letters that
 * nobody redrove in their time are discarded.
 */
export interface Retention extends Bounds {
  /** How long settled entries are kept, in ms. */
  readonly maxAgeMs: number
  /** How large the stream may be before settled entries go earlier, in bytes. */
  readonly maxBytes: number
  /** How many entries the stream may hold before settled ones go earlier; undefined is any number. */
  readonly maxEntries?: number
}

/** What counts where the stream's settings say nothing. */
export const DEFAULT_RETENTION: Retention = { maxAgeMs: 24 * 3_600_000, maxBytes: 1024 ** 3 }

/** Entries per step; more than a node of a stream holds, or XTRIM would remove nothing. */
export const TRIM_STEP = 400
const EVERY_MS = 15_000
/** How long one pass may take before it leaves the rest to the next. */
const PASS_MS = 2000

export class Trimmer {
  readonly #deps: {
    connection: Connection
    member: Member
    retention: Retention
    counts: WorkerCounts
    logger: Logger
  }
  readonly #stopped = new AbortController()
  #loop: Promise<void> | undefined

  constructor(deps: {
    connection: Connection
    member: Member
    retention: Retention
    counts: WorkerCounts
    logger: Logger
  }) {
    this.#deps = deps
  }

  start(): void {
    this.#loop ??= this.#run()
  }

  async stop(): Promise<void> {
    this.#stopped.abort()
    await this.#loop
  }

  /** One pass over the stream, the group's redelivery stream and its dead letters. */
  async runOnce(): Promise<{ trimmed: number; discarded: number }> {
    const { member, retention, counts } = this.#deps
    const { client } = this.#deps.connection
    const [stream, redelivery] = [member.stream, sourceKey(member, 1)]
    const trimmed =
      (await this.#trim(() => retainStep(client, stream, { defaults: retention, limit: TRIM_STEP }))) +
      (await this.#trim(() => trimStep(client, redelivery, { maxAgeMs: 0, limit: TRIM_STEP })))
    counts.trimmed += trimmed
    const discarded = await this.#trim(() => purgeExpired(client, member))
    if (discarded > 0) {
      this.#deps.logger.warn({ discarded }, 'dead letters past their age were discarded')
    }
    counts.discarded += discarded
    return { trimmed, discarded }
  }

  async #trim(next: () => Promise<Pick<Trimmed, 'removed' | 'more'>>): Promise<number> {
    const untilMs = monotonicMs() + PASS_MS
    let removed = 0
    for (;;) {
      const step = await next()
      removed += step.removed
      if (!step.more || monotonicMs() > untilMs || this.#stopped.signal.aborted) return removed
    }
  }

  async #run(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      await sleep(EVERY_MS * (0.75 + Math.random() / 2), this.#stopped.signal)
      if (this.#stopped.signal.aborted) return
      await this.runOnce().catch((error: unknown) => {
        if (this.#deps.connection.fault(error).kind !== 'fatal') return
        this.#deps.logger.warn({ fault: faultText(error) }, 'cannot trim')
      })
    }
  }
}
