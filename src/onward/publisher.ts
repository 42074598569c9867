import { publishChannel } from '../channels.ts'
import { PublishError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { MetricsBook } from '../metrics/book.ts'
import { refuseUnknownKeys } from '../options.ts'
import { checkBuffer } from '../producer-options.ts'
import { jobNameOf, type Outgoing } from '../publish/outgoing.ts'
import { pack, type Route } from '../publish/packing.ts'
import { NO_OPTIONS, refusal, Router, type Named } from '../publish/router.ts'
import { carrying, toldOf } from '../publish/telling.ts'
import { checkStreamName, sharesSlot } from '../redis/keys.ts'
import type { ContainedPublish, ContainedTracing } from '../tracing.ts'
import { Onward, type OnwardPublishing, type OnwardRun, type OnwardTarget } from './onward.ts'
import { JOB_PUBLISH_KNOWN, type JobPublishOptions } from './options.ts'
import { Told, onChannel, type ChannelCall } from './told.ts'
import { tokenOf, TOKEN_TTL_MS } from './token.ts'

/** Most publishes of one run: with its ack they go into one script call, which may touch 500 entries. */
const MOST_PUBLISHES = 100
/** Most bytes of a payload, and of all publishes of a run. */
const MOST_BYTES = 1024 * 1024
const MOST_TARGETS = 1000

export interface OnwardDeps {
  readonly book: Pick<MetricsBook, 'producer'>
  readonly logger: Logger
  readonly tracing: ContainedTracing | undefined
  /** Whether the handler of this run is at work. */
  readonly isUnderWay: (run: OnwardRun) => boolean
  /** This machine's time, in ms since the epoch. */
  readonly nowMs: () => number
}

/** Checks and packs what the handlers of one stream and group publish, when they do: a mistake fails the run that made it. */
export class OnwardPublisher implements OnwardPublishing {
  readonly #member: { readonly stream: string; readonly group: string }
  readonly #deps: OnwardDeps
  readonly #router: Router<OnwardTarget>
  readonly #targets = new Map<string, OnwardTarget>()

  constructor(member: { readonly stream: string; readonly group: string }, deps: OnwardDeps) {
    this.#member = member
    this.#deps = deps
    const rules = { timeoutMs: 10_000, durability: 'redis', buffer: checkBuffer() } as const
    this.#router = new Router({ ...rules, batcherOf: (stream) => this.#target(stream), nowMs: deps.nowMs })
  }

  /** @throws PublishError: nothing is published of this call, and the run goes on if the handler catches it. */
  publish(run: OnwardRun, job: Named, data: unknown, options: JobPublishOptions | undefined): void {
    if (!publishChannel.hasSubscribers) return this.#publish(run, { job, data, options })
    const { stream = this.#member.stream, ...about } = toldOf(job, options ?? NO_OPTIONS, false)
    onChannel({ stream, ...about }, (call) => this.#publish(run, { job, data, options, call }))
  }

  #publish(run: OnwardRun, { job, data, options = NO_OPTIONS, call }: Call): void {
    this.#checkUnderWay(run)
    const route = this.#route(job, options)
    const onward = (run.onward ??= new Onward())
    const traced = this.#traced(run, route)
    try {
      const item = pack(traced === undefined ? route : { ...route, ...carrying(traced) }, data, MOST_BYTES)
      this.#checkUnderWay(run)
      checkBounds(onward, item)
      const told = traced === undefined && call === undefined ? undefined : new Told(traced, call)
      this.#add(run, onward, { item, target: route.batcher, told })
    } catch (error) {
      traced?.end({ published: 0, error })
      throw error
    }
  }

  /** A part of the run's trace. The function of a batch is in the context of none of its jobs, and what it publishes is of one of them. */
  #traced(run: OnwardRun, { name, batcher: { stream } }: Route<OnwardTarget>): ContainedPublish | undefined {
    const begin = () => this.#deps.tracing?.publish({ stream, job: name, isMany: false })
    return run.handler?.batch === undefined || run.traced === undefined ? begin() : run.traced.run(begin)
  }

  #add(run: OnwardRun, onward: Onward, given: Omit<Onward['publishes'][number], 'isNear'>): void {
    const { item, target } = given
    // What asks for a look at what is there already has it from the script that publishes.
    const isNear = target.isOfSlot && item.token === undefined && item.unique === undefined
    const tokened = isNear || item.token !== undefined ? item : { ...item, token: this.#tokenOf(run, onward, given) }
    onward.publishes.push({ ...given, item: tokened, isNear })
    onward.bytes += item.bytes
  }

  #tokenOf(
    run: OnwardRun,
    onward: Onward,
    { item, target }: Pick<Onward['publishes'][number], 'item' | 'target'>,
  ): Outgoing['token'] {
    const job = jobNameOf(item)
    const before = onward.countTokened(target.stream, job)
    return { text: tokenOf(this.#member, run.id, { job, before }), ttlMs: TOKEN_TTL_MS }
  }

  #route(job: Named, options: JobPublishOptions): Route<OnwardTarget> {
    try {
      if (options !== NO_OPTIONS) refuseUnknownKeys('job.publish', options, JOB_PUBLISH_KNOWN)
    } catch (error) {
      throw refusal(error)
    }
    const stream = options.stream ?? (typeof job === 'string' ? undefined : job?.stream) ?? this.#member.stream
    return this.#router.route(job, { ...options, stream })
  }

  #target(stream: string): OnwardTarget {
    const known = this.#targets.get(stream)
    if (known !== undefined) return known
    checkStreamName(stream)
    // Names may come from payloads: they must not make the map grow without end.
    if (this.#targets.size >= MOST_TARGETS) this.#targets.clear()
    const { book, logger } = this.#deps
    const isOfSlot = sharesSlot(stream, this.#member.stream)
    const target = { stream, numbers: book.producer(stream, logger), isOfSlot }
    this.#targets.set(stream, target)
    return target
  }

  #checkUnderWay(run: OnwardRun): void {
    if (run.onward?.isClosed !== true && this.#deps.isUnderWay(run)) return
    const text = `the run of job ${run.name} ${run.id} is over: what it publishes has to be published before its handler ends; await what calls \`job.publish\``
    throw new PublishError('ERR_RUN_ENDED', text, { published: 'no' })
  }
}

/** A call of `job.publish`. */
interface Call {
  readonly job: Named
  readonly data: unknown
  readonly options?: JobPublishOptions | undefined
  /** Where the channel was told of it. */
  readonly call?: ChannelCall
}

/** @throws PublishError */
function checkBounds({ publishes, bytes }: Onward, item: Outgoing): void {
  const todo = 'publish one job that publishes the others, or publish with a producer'
  if (publishes.length >= MOST_PUBLISHES) {
    const text = `expected at most ${MOST_PUBLISHES} calls of \`job.publish\` in one run, since they are appended in one step; ${todo}`
    throw new PublishError('ERR_RUN_PUBLISHES', text, { published: 'no' })
  }
  if (publishes.length > 0 && bytes + item.bytes > MOST_BYTES) {
    const text = `expected at most ${MOST_BYTES} bytes of what one run publishes, since it is appended in one step, got ${bytes + item.bytes}; ${todo}`
    throw new PublishError('ERR_RUN_PUBLISHES', text, { published: 'no' })
  }
}
