import { backoffMs, monotonicMs, sleep } from './clock.ts'
import { RedisError } from './errors.ts'
import type { Delivery } from './delivery.ts'
import type { Logger } from './logger.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'
import type { Member } from './redis/member.ts'
import type { ContainedTracing, TracedSettle } from './tracing.ts'

/** How an attempt to write outcomes ended; `refused`: Redis will not do it however often it is asked. */
export type Written<Reply> =
  | { readonly kind: 'answered'; readonly reply: Reply; readonly isResent: boolean }
  | { readonly kind: 'lost-group' | 'refused' | 'stopped' }

/** Outcomes that go together. */
export interface ToWrite {
  /** What cannot be done while Redis is away. */
  readonly what: string
  readonly operation: 'ack' | 'settle'
  readonly deliveries: readonly Delivery[]
  /** What Redis refuses for good comes back as `refused`, and is not tried for ever. */
  readonly mayDivide: boolean
  /** What is written to may be at another node of a cluster, which is no matter of waiting. @default false */
  readonly mayBeElsewhere?: boolean
}

interface WriterDeps {
  readonly numbers: WorkerNumbers
  readonly logger: Logger
  readonly tracing: ContainedTracing | undefined
  readonly stopped: AbortSignal
}

const NOT_WRITTEN = {
  'lost-group': 'the group had vanished, nothing is pending in it any more',
  refused: 'Redis refused the batch; its outcomes are written in smaller ones',
  stopped: 'the worker stopped before Redis had confirmed',
} as const

/**
 * Writes outcomes to Redis until it has answered: if it is away or refuses, the outcome is kept and tried again, and the job
 * is not run once more because of it.
 */
export class OutcomeWriter {
  readonly #connection: Connection
  readonly #member: Member
  readonly #numbers: WorkerNumbers
  readonly #logger: Logger
  readonly #tracing: ContainedTracing | undefined
  readonly #stopped: AbortSignal

  constructor(redis: { connection: Connection; member: Member }, { numbers, logger, tracing, stopped }: WriterDeps) {
    this.#connection = redis.connection
    this.#member = redis.member
    this.#numbers = numbers
    this.#logger = logger
    this.#tracing = tracing
    this.#stopped = stopped
  }

  /** @param write its argument tells a try that an earlier one may have been executed. */
  async write<Reply>(about: ToWrite, write: (uncertain: boolean) => Promise<Reply>): Promise<Written<Reply>> {
    const traced = this.#tracing === undefined ? undefined : this.#traced(this.#tracing, about)
    if (traced === undefined) return this.#write(about, write)
    const written = await this.#write(about, write)
    traced.ended(written.kind === 'answered' ? undefined : new Error(NOT_WRITTEN[written.kind]))
    return written
  }

  #traced(tracing: ContainedTracing, { operation, deliveries }: ToWrite): TracedSettle | undefined {
    const runs = deliveries.flatMap(({ traced }) => (traced === undefined ? [] : [traced.given]))
    return runs.length === 0 ? undefined : tracing.settle({ ...this.#member, operation, jobs: deliveries.length, runs })
  }

  async #write<Reply>(
    { what, deliveries, mayDivide, mayBeElsewhere = false }: ToWrite,
    write: (uncertain: boolean) => Promise<Reply>,
  ): Promise<Written<Reply>> {
    let uncertain = false
    for (let tries = 0; !this.#stopped.aborted; tries++) {
      try {
        await this.#connection.ready(1000)
        const sentAtMs = monotonicMs()
        const reply = await write(uncertain)
        this.#numbers.ackDuration.observe((monotonicMs() - sentAtMs) / 1000)
        return { kind: 'answered', reply, isResent: uncertain }
      } catch (error) {
        const { kind, word } = this.#connection.fault(error)
        this.#numbers.acks.error += deliveries.length
        uncertain ||= kind === 'unknown' && !(error instanceof RedisError)
        if (kind === 'lost-group') return { kind }
        const isForGood = kind === 'fatal' || (mayBeElsewhere && word === 'MOVED')
        if (isForGood && mayDivide) return { kind: 'refused' }
        if (tries === 0) {
          const about = { outcomes: deliveries.length, fault: faultText(error) }
          this.#logger.warn(about, `cannot ${what} now; the outcome is kept`)
        }
        await sleep(backoffMs(tries, 50, 1000), this.#stopped)
      }
    }
    return { kind: 'stopped' }
  }
}
