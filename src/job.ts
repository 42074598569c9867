import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { BatchTerms } from './batch/terms.ts'
import type { CronTick } from './cron/tick.ts'
import { OptionError } from './errors.ts'
import type { Headers } from './headers.ts'
import { checkJobName } from './job-name.ts'
import type { JobPublishOptions } from './onward/options.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { checkJobUnique, type JobUniqueOptions } from './publish/unique.ts'
import { checkOrder, type OnFailure, type OrderBy } from './publish/order.ts'
import { checkStreamName } from './redis/keys.ts'
import { checkRetry, type RetryOptions } from './retry.ts'
import { checkSchema, type Schema } from './schema.ts'
import { checkVersions, type Upcasts } from './versions.ts'

export { checkJobName, isJobName } from './job-name.ts'

/**
 * What both sides share of a job: its name, its stream, what its payload must be, and what the worker needs to know of it.
 * `Input` is what is published, `Output` what the handler is given, `Result` what the handler gives back.
 */
export interface JobDefinition<Input = unknown, Output = Input, Name extends string = string, Result = unknown> {
  readonly name: Name
  /** The stream that its jobs are published to, unless a publish names another. */
  readonly stream: string | undefined
  /** How long one run may take, in ms; `false` is no limit. The worker's definition counts. */
  readonly timeoutMs: number | false | undefined
  /** When a failed run is tried again; what it leaves open is as the worker says. */
  readonly retry: RetryOptions | undefined
  /** How its jobs are unique, unless a publish says otherwise; a producer's definition counts. */
  readonly unique?: JobUniqueOptions<Input> | undefined
  /** Where in its payload the key is that its jobs are in order by, unless a publish says another; a producer's definition counts. */
  readonly orderBy?: OrderBy | undefined
  /** What becomes of its turn when it failed and waits for its next attempt. The worker's definition counts. */
  readonly onFailure?: OnFailure | undefined
  /** What its payload must be: checked when it is published, and again before it runs. */
  readonly schema?: Schema | undefined
  /** The version of the payload that is published; absent is 1. */
  readonly version?: number
  /** How an older payload becomes the next version. */
  readonly upcast?: Upcasts | undefined
  /** Never set: carries the type of the payload that is published. */
  readonly data?: Input
  /** Never set: carries the type of the payload that the handler is given. */
  readonly output?: Output
  /** Never set: carries the type of what the handler gives back. */
  readonly result?: Result
}

export interface JobOptions<Data = unknown> {
  /** The stream that its jobs are published to. @default none: every publish names it */
  stream?: string
  /** How long one run may take, in ms; `false` is no limit. @default the worker's timeoutMs */
  timeoutMs?: number | false
  /** When a failed run is tried again, and how often. @default the worker's retry */
  retry?: RetryOptions
  /** By what its jobs are unique, and how. @default none: only jobs that are published with a `uniqueKey` */
  unique?: JobUniqueOptions<Data>
  /**
   * Where in the payload the key is, as `data.account`: of the jobs of a key one runs at a time in each group, in the order in which
   * they were published. A text, a number or a boolean has to be there. @default none: only jobs that are published with a `key`
   */
  orderBy?: OrderBy
  /**
   * What the others of its key do while a job that failed waits for its next attempt. `block`: they wait too. `skip`: they go on, and
   * it lines up behind them when it is due. @default 'block'
   */
  onFailure?: OnFailure
  /** The version of its payload, 1 to 1000; raise it when the payload changes. @default 1 */
  version?: number
  /** How an older payload becomes the next version: a step from every version below `version`, by number. @default none */
  upcast?: Upcasts
}

/** Of a job whose payload is checked. */
export interface SchemaJobOptions<PayloadSchema extends Schema, ResultSchema extends Schema> extends JobOptions<
  StandardSchemaV1.InferInput<PayloadSchema>
> {
  /**
   * What its payload must be: a Standard Schema that answers at once. What it accepts is published, what it makes of that is given
   * to the handler.
   */
  schema: PayloadSchema
  /** What its handler gives back. For types only: nothing is checked. @default anything */
  result?: ResultSchema
}

/** What a handler is told of the job that it runs. `State` is what the worker's middleware puts there. */
export interface Job<State = object> {
  /** The job's id: the same through every delivery, and so what makes an idempotency key. */
  readonly id: string
  readonly name: string
  readonly stream: string
  readonly group: string
  /** Which run this is by failures: 1 at first, one more for each attempt that failed before. */
  readonly attempt: number
  /** Which delivery this is: 1 at first, one more for each worker that went away with it. */
  readonly deliveries: number
  /** The job that a replay copied this one from, and its stream; undefined for any other job. */
  readonly replayOf: { readonly stream: string; readonly id: string } | undefined
  /** What it is in order by: of the jobs of a key one runs at a time in its group; undefined for a job that is in no order. */
  readonly key: string | undefined
  /** The recurring schedule that has published this job, and its tick; undefined for any other job. */
  readonly cron: CronTick | undefined
  /**
   * Aborts when the lease is lost, the timeout is over, the job was cancelled, or the worker stops and the drain is over; its
   * reason says which.
   */
  readonly signal: AbortSignal
  /** What the job was published with beside its payload, by lower-case name; frozen, and without a prototype. */
  readonly headers: Headers
  /** What the worker's middleware has put there for this run; every run begins with an empty one. */
  readonly state: State
  /**
   * Says how far the run is, for people: anything of at most 1 KiB of JSON. Best effort: written once a second at most, the last one
   * counts, and none is while Redis is away. Never throws.
   */
  progress(value: unknown): void
  /** Keeps a line, of at most 1 KiB, with the job: the last 100 of them, and 16 KiB. Best effort, like progress. */
  log(line: string): void
  /**
   * Keeps what the next run of this job may go on from, if this one does not come to its end: at most 64 KiB of JSON. Resolves once it
   * is in Redis.
   * @throws OptionError for what is too large or no JSON; LeaseLostError where the job is settled or runs elsewhere by now; RedisError if Redis refuses.
   */
  checkpoint(state: unknown): Promise<void>
  /** What an earlier run of this job has kept last; undefined if none has. @throws RedisError if Redis refuses. */
  lastCheckpoint(): Promise<unknown>
  /**
   * Publishes a job with the completion of this one: once if this job completes, and not at all otherwise, whatever dies when.
   * Checked at once, and kept until the handler ends; so there is nothing to wait for. At most 100 calls and 1 MiB in a run.
   * @throws PublishError, as a producer's publish does; ERR_RUN_ENDED when the handler has ended already.
   */
  publish<Data>(job: JobDefinition<Data, unknown> | string, data: NoInfer<Data>, options?: JobPublishOptions): void
}

export type HandlerFunction<Data = unknown, Result = unknown, State = object> = (
  data: Data,
  job: Job<State>,
) => Result | PromiseLike<Result>

/** One handler and the job that it is for. */
export interface Handler<State = object> {
  readonly job: JobDefinition
  readonly run: HandlerFunction<unknown, unknown, State>
  /** How its jobs are gathered, of a `handleBatch`. */
  readonly batch?: BatchTerms
}

/** What a worker takes: a list of `handle(…)` and `handleBatch(…)`, or an object of functions, or of these, by job name. */
export type Handlers<State = object> =
  readonly Handler<State>[] | Readonly<Record<string, HandlerFunction<unknown, unknown, State> | Handler<State>>>

/**
 * Defines a job: the name that its entries carry, the type of its payload, and what the payload must be.
 * @throws OptionError on a bad name or option.
 */
export function defineJob<
  const Name extends string,
  PayloadSchema extends Schema,
  ResultSchema extends Schema = Schema<unknown>,
>(
  name: Name,
  options: SchemaJobOptions<PayloadSchema, ResultSchema>,
): JobDefinition<InputOf<PayloadSchema>, CheckedBy<PayloadSchema>, Name, InputOf<ResultSchema>>
export function defineJob<Data = unknown, const Name extends string = string>(
  name: Name,
  options?: JobOptions<Data>,
): JobDefinition<Data, Data, Name>
export function defineJob(
  name: string,
  options: JobOptions & { schema?: Schema; result?: Schema } = {},
): JobDefinition {
  checkJobName(name)
  refuseUnknownKeys(`job ${name}`, options, JOB_KNOWN)
  if (options.stream !== undefined) checkStreamName(options.stream)
  checkSchema('result', options.result)
  return {
    name,
    stream: options.stream,
    timeoutMs: resolveTimeout(options.timeoutMs),
    retry: checkRetry('retry', options.retry),
    schema: checkSchema('schema', options.schema),
    ...checkVersions(options),
    unique: checkJobUnique(name, options.unique),
    ...checkOrder(options),
  }
}

const JOB_KNOWN = [
  ...['stream', 'timeoutMs', 'retry', 'unique', 'schema', 'result', 'version', 'upcast'],
  ...['orderBy', 'onFailure'],
]

type InputOf<Given extends Schema> = StandardSchemaV1.InferInput<Given>
type CheckedBy<Given extends Schema> = StandardSchemaV1.InferOutput<Given>

/** Ties a function to the job that it handles. */
export function handle<Output, Result, State = object>(
  job: JobDefinition<unknown, Output, string, Result>,
  run: HandlerFunction<NoInfer<Output>, NoInfer<Result>, State>,
): Handler<State> {
  checkDefined('handle', job)
  if (typeof run !== 'function')
    throw new OptionError(`expected the handler of ${job.name} to be a function, got ${shown(run)}`)
  return { job, run: run as HandlerFunction<unknown, unknown, State> }
}

/** Where modules import each other, a definition may not be there yet: only here it can be seen which. @throws OptionError */
export function checkDefined(where: string, job: unknown): void {
  if (typeof job === 'object' && typeof (job as Partial<JobDefinition> | null)?.name === 'string') return
  throw new OptionError(`expected the job of ${where} to be what defineJob gives, got ${shown(job)}`)
}

/** Brings both forms of handlers into one map by job name. @throws OptionError ERR_HANDLERS when there is none. */
export function resolveHandlers(given: unknown): Map<string, Handler> {
  const byName = new Map<string, Handler>()
  for (const handler of handlersOf(given)) {
    if (byName.has(handler.job.name)) {
      throw new OptionError(`expected one handler for job ${handler.job.name}, got two`, 'ERR_HANDLERS')
    }
    byName.set(checkJobName(handler.job.name), handler)
  }
  if (byName.size === 0) throw new OptionError('expected at least one handler, got none', 'ERR_HANDLERS')
  return byName
}

/** A timeout in ms, `false` for none, undefined when the option is absent. */
export function resolveTimeout(given: number | false | undefined): number | false | undefined {
  if (given === undefined || given === false) return given
  if (typeof given !== 'number') oneOf('timeoutMs', given, ['a positive integer', 'false'])
  return wholeNumber('timeoutMs', given, { or: 0, max: 2 ** 31 - 1 })
}

function handlersOf(given: unknown): Handler[] {
  if (Array.isArray(given)) return given.map(checkHandler)
  if (typeof given !== 'object' || given === null) {
    throw new OptionError(
      `expected handlers to be a list of handle(job, function) or an object of functions, got ${shown(given)}`,
      'ERR_HANDLERS',
    )
  }
  return Object.entries(given).map(([name, run]: [string, unknown]) => {
    if (typeof run === 'function') {
      return { job: defineJob(name), run: run as HandlerFunction }
    }
    if (isHandler(run)) return checkNamed(name, run)
    throw new OptionError(`expected the handler of ${name} to be a function, got ${shown(run)}`, 'ERR_HANDLERS')
  })
}

/** Under another name it would be called for jobs that its definition is not of. */
function checkNamed(name: string, handler: Handler): Handler {
  if (handler.job.name === name) return checkHandler(handler)
  const text = `expected the handler of ${name} to be one of job ${name}, got one of ${handler.job.name}`
  throw new OptionError(text, 'ERR_HANDLERS')
}

function isHandler(given: unknown): given is Handler {
  const handler = given as Partial<Handler> | null
  return typeof handler?.run === 'function' && typeof handler.job?.name === 'string'
}

function checkHandler(given: unknown): Handler {
  if (isHandler(given)) {
    // Written by hand, a definition has not been through defineJob.
    checkRetry(`${given.job.name}.retry`, given.job.retry)
    checkSchema(`${given.job.name}.schema`, given.job.schema)
    const { version, upcast } = given.job
    checkVersions({ ...(version !== undefined && { version }), ...(upcast !== undefined && { upcast }) })
    resolveTimeout(given.job.timeoutMs)
    checkOrder(given.job)
    return given
  }
  throw new OptionError(`expected a list of handle(job, function), got ${shown(given)} in it`, 'ERR_HANDLERS')
}
