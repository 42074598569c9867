import { monotonicMs } from './clock.ts'
import { runChannel } from './channels.ts'
import { decide, type Dead, type Outcome, type Run } from './decide.ts'
import type { Delivery } from './delivery.ts'
import { jobEventOf } from './events.ts'
import { messageOf } from './errors.ts'
import type { ExecutorDeps } from './executor-deps.ts'
import type { Handler } from './job.ts'
import { JobKinds, type JobKind } from './job-kinds.ts'
import type { Limit } from './limits/limit.ts'
import { NO_JOB } from './metrics/job-names.ts'
import { runObserved } from './observed-run.ts'
import { Overruns } from './overruns.ts'
import { expiredBy, prepare, type Prepared } from './prepare.ts'
import { timeOf } from './redis/entry-id.ts'
import { keepAnswer, keepSkipped } from './results/answer.ts'
import { tellBegun } from './run-begun.ts'
import { causeOf, countedAs, endOf, errorOf } from './run-end.ts'
import { isThenable } from './thenable.ts'
import { decodeJob, decodeRaw, jobIdOf, type Malformed, type WireJob } from './wire.ts'

/**
 * One delivery from start to settled: decode, find its handler, check (prepare.ts), run it under its timeout and signal
 * (overruns.ts), decide, settle. The order of the steps is the specification. Not async: an await per step would cost more than
 * most of the steps.
 */
export class Executor {
  readonly #deps: ExecutorDeps
  /** While a run's end is being dealt with: when it was. */
  #endedAtMs = 0
  readonly #kinds: JobKinds
  readonly #overruns: Overruns

  constructor(deps: ExecutorDeps) {
    this.#deps = deps
    this.#overruns = new Overruns(deps)
    this.#kinds = new JobKinds(deps)
  }

  /** Runs a delivery that has its fields; returns at once, `onEnded` is called when the slot is free again. */
  start(delivery: Delivery): void {
    if (delivery.onTurn !== undefined) return this.#turned(delivery, delivery.onTurn)
    const decoded = decodeJob(delivery.entryId, delivery.fields ?? [])
    if (decoded.kind === 'suspect') void this.#startRaw(delivery)
    else this.#startDecoded(delivery, decoded)
  }

  /** Dead-letters a claimed delivery that has used up its deliveries, without running it. */
  async buryUnrun(delivery: Delivery): Promise<void> {
    const raw = (await this.#deps.readRaw(delivery)) ?? []
    const decoded = decodeRaw(delivery.entryId, raw)
    const kind = decoded.kind === 'job' ? this.#kinds.of(decoded.name) : undefined
    const fields = raw.map((field) => field.toString())
    this.#identify(delivery, jobIdOf(delivery.entryId, fields), kind)
    if (decoded.kind === 'job') delivery.know(decoded.failed, decoded.earlier, decoded.extra)
    if (kind?.isSkipped === true) return this.#skipped(delivery)
    const why = `delivered ${delivery.deliveries} times and its workers went away before it had an outcome`
    this.#deps.settler.fail(delivery, { kind: 'dead', reason: 'deliveries', error: new Error(why) })
  }

  /** Ends the runs that are past their time. */
  endOverdue(): void {
    this.#overruns.end()
  }

  /** Runs that go on though their signal was aborted: they hold slots, and nothing comes of it. */
  get overdue(): number {
    return this.#overruns.overdue
  }

  #startDecoded(delivery: Delivery, decoded: WireJob | Malformed): void {
    delivery.startedAtMs = this.#endedAtMs === 0 ? monotonicMs() : this.#endedAtMs
    const kind = decoded.kind === 'job' ? this.#kinds.of(decoded.name) : undefined
    this.#identify(
      delivery,
      decoded.kind === 'job' ? decoded.id : jobIdOf(delivery.entryId, delivery.fields ?? []),
      kind,
    )
    if (decoded.kind === 'job') delivery.know(decoded.failed, decoded.earlier, decoded.extra)
    if (kind?.isSkipped === true) return this.#skip(delivery)
    if ((delivery.extra?.pastDeliveries ?? 0) >= delivery.deliveries) return this.#recount(delivery)
    const key = delivery.extra?.key
    if (key !== undefined && this.#deps.turns !== undefined) return this.#askTurn(delivery, key, { decoded, kind })
    this.#proceed(delivery, decoded, kind)
  }

  /** Before anything else may put it off: a job that waits for a limit, or for a worker that knows it, has the turn of its key. */
  #askTurn(delivery: Delivery, key: string, known: { decoded: WireJob | Malformed; kind: JobKind | undefined }): void {
    const proceed = () => this.#proceed(delivery, known.decoded, known.kind)
    // What is not to run needs no turn.
    if (this.#deps.cancelled.has(delivery.id) || this.#late(delivery) !== undefined) return proceed()
    delivery.startedAtMs = 0
    this.#deps.turns?.ask(delivery, key, proceed)
    this.#deps.onAsks?.()
  }

  #turned(delivery: Delivery, proceed: () => void): void {
    delivery.onTurn = undefined
    delivery.startedAtMs = monotonicMs()
    proceed()
  }

  #proceed(delivery: Delivery, decoded: WireJob | Malformed, kind: JobKind | undefined): void {
    const timeoutMs = kind?.handler?.job.timeoutMs ?? this.#deps.timeoutMs
    delivery.timeoutMs = timeoutMs === false ? Infinity : timeoutMs
    const prepared = this.#prepared(delivery, decoded, kind)
    if (kind?.limits === undefined) return this.#begin(delivery, prepared)
    this.#askLimits(delivery, kind.limits, prepared)
  }

  /** Its new entry does not count the workers that it took down: it is handed back with its true count, to be claimed. */
  #recount(delivery: Delivery): void {
    delivery.startedAtMs = 0
    this.#deps.onUncounted(delivery)
    this.#deps.onEnded()
  }

  /** Its group does not want it, whatever else there is to be said of it. */
  #skip(delivery: Delivery): void {
    if (!this.#deps.holdings.start(delivery)) return this.#dropped(delivery)
    this.#skipped(delivery)
    this.#deps.onEnded()
  }

  #skipped(delivery: Delivery): void {
    delivery.count('skipped')
    if (delivery.extra?.reply !== undefined) keepSkipped(delivery)
    this.#deps.settler.skip(delivery)
  }

  /** Its limits allow it, or it has none. */
  #begin(delivery: Delivery, prepared: Prepared): void {
    if (!this.#deps.holdings.start(delivery)) return this.#dropped(delivery)
    if (this.#deps.cancelled.has(delivery.id)) return this.#ended(delivery, { kind: 'cancelled' })
    if (prepared.kind !== 'run') return this.#ended(delivery, { kind: 'unrun', outcome: prepared })
    this.#confirm(delivery, prepared.handler, prepared.data)
  }

  /** Of a unique job Redis is asked first whether it has given way; its time begins then. One that let go of its key before could not. */
  #confirm(delivery: Delivery, handler: Handler, data: unknown): void {
    const { extra, timeoutMs, attempt } = delivery
    const isHeldUntilStarted = extra?.unique?.until === 'started'
    if (extra?.unique === undefined || (isHeldUntilStarted && attempt > 1)) return this.#run(delivery, handler, data)
    // In the table too, by which the keeper goes: it would let the lease of one that waits for its answer run out.
    delivery.timeoutMs = Infinity
    this.#deps.holdings.timed(delivery)
    this.#deps.uniqueStarts.push(delivery, isHeldUntilStarted ? extra.unique.key : undefined, (isCancelled) => {
      if (delivery.ended !== undefined) return this.#unbegun(delivery, delivery.ended)
      if (isCancelled) return this.#ended(delivery, { kind: 'cancelled' })
      delivery.startedAtMs = monotonicMs()
      delivery.timeoutMs = timeoutMs
      this.#deps.holdings.timed(delivery)
      const late = this.#late(delivery)
      if (late === undefined) this.#run(delivery, handler, data)
      else this.#ended(delivery, { kind: 'unrun', outcome: late })
    })
  }

  /** Ended before its handler was called: lost, cancelled, or left to the stop, which hands it back. */
  #unbegun(delivery: Delivery, reason: Error): void {
    if (endOf(reason) === 'lost') this.#dropped(delivery)
    else this.#ended(delivery, { kind: 'failed', error: reason })
  }

  /**
   * What is not to run anyway asks for no limit. What was prepared is kept while it waits: a step or a schema that changes what it
   * is given must not be given it twice.
   */
  #askLimits(delivery: Delivery, limits: readonly Limit[], prepared: Prepared): void {
    const { limiter, cancelled } = this.#deps
    if (limiter === undefined || prepared.kind !== 'run' || cancelled.has(delivery.id)) {
      return this.#begin(delivery, prepared)
    }
    const fault = limiter.ask(delivery, limits, prepared.data, () => {
      delivery.startedAtMs = monotonicMs()
      this.#begin(delivery, this.#late(delivery) ?? prepared)
    })
    if (fault !== undefined) return this.#unlimitable(delivery, fault)
    delivery.startedAtMs = 0
    this.#deps.onDeferred(delivery)
  }

  /** After a wait its deadline may be over. */
  #late({ extra, startedAtMs }: Delivery): Dead | undefined {
    return extra?.expiresMs === undefined ? undefined : expiredBy(extra.expiresMs, this.#deps.clock.at(startedAtMs))
  }

  /** Its limits cannot be told, now and at any other time. */
  #unlimitable(delivery: Delivery, fault: string): void {
    if (!this.#deps.holdings.start(delivery)) return this.#dropped(delivery)
    const outcome = { kind: 'dead', reason: 'invalid', error: new Error(fault) } as const
    this.#ended(delivery, { kind: 'unrun', outcome })
  }

  /** It has waited long enough here for its limits, and goes on waiting in the scheduled set. */
  defer(delivery: Delivery, { delayMs, why }: { delayMs: number; why: string }): void {
    this.#deps.onUndeferred(delivery)
    delivery.startedAtMs = monotonicMs()
    if (!this.#deps.holdings.start(delivery)) return this.#dropped(delivery)
    this.#ended(delivery, { kind: 'unrun', outcome: { kind: 'wait', delayMs, why } })
  }

  /** It waited for its limits, and is not ours any more. */
  lose(delivery: Delivery): void {
    this.#deps.onUndeferred(delivery)
    this.#dropped(delivery)
  }

  /** Most jobs have nothing to be checked but that they have a handler. */
  #prepared({ startedAtMs }: Delivery, decoded: WireJob | Malformed, kind: JobKind | undefined): Prepared {
    const handler = kind?.handler
    if (decoded.kind === 'job' && handler !== undefined && decoded.extra === undefined && kind?.isChecked === false) {
      return { kind: 'run', handler, data: decoded.data }
    }
    const { clock, chance, unknownJobMs } = this.#deps
    return prepare({ decoded, handler, unknownJobMs }, { nowMs: clock.at(startedAtMs), chance: chance() })
  }

  /** The handler is called here. */
  #run(delivery: Delivery, handler: Handler, data: unknown): void {
    tellBegun(delivery, this.#deps)
    const { tracing } = this.#deps
    if (tracing !== undefined) {
      delivery.handler = handler
      delivery.traced = tracing.process(delivery)
    }
    const isObserved = delivery.traced !== undefined || runChannel.hasSubscribers
    let awaited: Promise<unknown> | undefined
    try {
      const result = isObserved ? runObserved(delivery, handler, data) : handler.run(data, delivery)
      // A promise settles once; what merely looks like one may not.
      if (isThenable(result)) awaited = Promise.resolve(result)
      else if (delivery.extra?.reply !== undefined) keepAnswer(delivery, result, this.#deps.maxResultBytes)
    } catch (error) {
      return this.#returned(delivery, { kind: 'failed', error })
    }
    if (awaited === undefined) return this.#returned(delivery, COMPLETED)
    awaited.then(
      (result) => {
        if (delivery.extra?.reply !== undefined) keepAnswer(delivery, result, this.#deps.maxResultBytes)
        this.#returned(delivery, COMPLETED)
      },
      (error: unknown) => this.#returned(delivery, { kind: 'failed', error }),
    )
  }

  #returned(delivery: Delivery, returned: Run): void {
    const { numbers, late } = delivery
    const endedAtMs = monotonicMs()
    const ranMs = this.#deps.numbers.ended(delivery.startedAtMs, endedAtMs)
    const run: Run = late === undefined || returned.kind === 'completed' ? returned : { kind: 'unrun', outcome: late }
    if (numbers !== undefined && run.kind !== 'unrun') {
      const duration = run.kind === 'completed' ? numbers.okDuration : numbers.errorDuration
      duration.observe(ranMs / 1000)
    }
    if (run.kind === 'failed' && this.#deps.events.has('job:failed')) {
      this.#deps.events.emit('job:failed', { ...jobEventOf(delivery), error: run.error })
    }
    // What takes the slot over starts in this call, and so at this moment: one reading of the clock for both.
    this.#endedAtMs = endedAtMs
    if (delivery.onward !== undefined) delivery.onward.close(run.kind === 'completed')
    try {
      this.#ended(delivery, run)
    } finally {
      this.#endedAtMs = 0
    }
  }

  #ended(delivery: Delivery, run: Run): void {
    const { settler, holdings, limiter, onEnded } = this.#deps
    if (limiter !== undefined) limiter.leave(delivery)
    const outcome = run.kind === 'completed' ? COMPLETED : this.#decided(delivery, run, delivery.ended)
    this.#count(delivery, run, outcome)
    // What waits was not run, and so not traced.
    if (delivery.traced !== undefined && outcome.kind !== 'wait')
      delivery.traced.end(outcome.kind, errorOf(delivery, run, outcome))
    switch (outcome.kind) {
      case 'completed':
        if (this.#deps.notes?.mayHave(delivery) === true) delivery.hasNotes = true
        settler.complete(delivery)
        break
      case 'left':
        holdings.release(delivery)
        break
      case 'handed-back':
        // Still held as running: the stop, which waits for this end, hands it back.
        break
      case 'retry':
      case 'wait':
      case 'dead':
      case 'cancelled':
        if (delivery.notes !== undefined) this.#deps.notes?.ending(delivery)
        settler.fail(delivery, outcome)
        break
    }
    onEnded()
  }

  /** It has completed, but what it publishes cannot be: a failed run after all. Its slot was given back when it ended. */
  refuse(delivery: Delivery, error: unknown): void {
    const { settler, holdings, events, counts } = this.#deps
    if (events.has('job:failed')) events.emit('job:failed', { ...jobEventOf(delivery), error })
    counts.failed += 1
    if (delivery.notes !== undefined) this.#deps.notes?.ending(delivery)
    // What ended its signal does not count any more: its handler was done before.
    const outcome = this.#decided(delivery, { kind: 'failed', error }, undefined)
    if (outcome.kind === 'retry' || outcome.kind === 'dead') settler.fail(delivery, outcome)
    else holdings.release(delivery)
  }

  /** Never throws: a slot that is not given back is lost for good. */
  #decided(delivery: Delivery, run: Run, ended: Error | undefined): Outcome {
    try {
      return this.#decide(delivery, run, ended)
    } catch (error) {
      const about = { ...jobEventOf(delivery), fault: messageOf(error) }
      this.#deps.logger.error(about, 'cannot tell what becomes of a job')
      return { kind: 'left' }
    }
  }

  #decide(delivery: Delivery, run: Run, ended: Error | undefined): Outcome {
    const { clock, chance, logger } = this.#deps
    const { id, name, attempt, publishedMs, firstFailedMs } = delivery
    const nowMs = clock.at(monotonicMs())
    const outcome = decide(
      run.kind === 'failed' ? { kind: 'failed', error: causeOf(run.error, ended) } : run,
      {
        ended: endOf(ended),
        attempt: { id, name, attempt, publishedMs, firstFailedMs: firstFailedMs ?? nowMs },
        retry: run.kind === 'failed' ? this.#kinds.of(name).retry : {},
      },
      { nowMs, chance: chance() },
    )
    const isFailure = outcome.kind === 'retry' || (outcome.kind === 'dead' && run.kind === 'failed')
    if (isFailure) delivery.failed(nowMs)
    if ('complaint' in outcome && outcome.complaint !== undefined) {
      const about = { ...jobEventOf(delivery), complaint: outcome.complaint }
      logger.error(about, "the job's retry options failed; the default was taken")
    }
    if (outcome.kind !== 'retry' || delivery.extra?.key === undefined) return outcome
    return { ...outcome, givesTurn: this.#kinds.of(name).handler?.job.onFailure === 'skip' }
  }

  #count(delivery: Delivery, run: Run, outcome: Outcome): void {
    const counted = countedAs(run, outcome)
    if (counted !== undefined) delivery.count(counted)
    if (run.kind === 'failed' && outcome.kind !== 'handed-back' && outcome.kind !== 'cancelled') {
      this.#deps.counts.failed += 1
    }
  }

  async #startRaw(delivery: Delivery): Promise<void> {
    try {
      const raw = await this.#deps.readRaw(delivery)
      if (raw === undefined) return this.#dropped(delivery)
      this.#startDecoded(delivery, decodeRaw(delivery.entryId, raw))
    } catch {
      // Redis is away: the entry stays pending and is claimed when its lease is over.
      this.#dropped(delivery)
    }
  }

  /** What is known of a job from here on, and where it is counted; without a kind it is no job. */
  #identify(delivery: Delivery, id: string, kind?: JobKind): void {
    delivery.identify(id, kind?.name ?? '')
    delivery.publishedMs = timeOf(id)
    delivery.numbers = kind?.numbers ?? this.#deps.numbers.jobs.of(NO_JOB)
  }

  /** Not ours any more, or not to be run now. */
  #dropped(delivery: Delivery): void {
    this.#deps.limiter?.leave(delivery)
    this.#deps.holdings.release(delivery)
    this.#deps.onEnded()
  }
}

const COMPLETED = { kind: 'completed' } as const
