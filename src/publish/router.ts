import { OptionError, PublishError } from '../errors.ts'
import { packHeaders } from '../headers.ts'
import { checkJobName, type JobDefinition } from '../job.ts'
import { refuseUnknownKeys, wholeNumber } from '../options.ts'
import {
  checkDurability,
  checkPriority,
  checkSignal,
  checkToken,
  PUBLISH_KNOWN,
  type BufferRules,
  type AnyPublishOptions,
} from '../producer-options.ts'
import { checkResult } from '../results/options.ts'
import { replyText } from '../results/reply.ts'
import type { Batcher } from './batcher.ts'
import { resolveDeadline } from './deadline.ts'
import { checkKind, isSameKind, versionFields, versionOf, type Kind } from './definition.ts'
import { resolveDue } from './due.ts'
import type { Durability } from './durability.ts'
import { orderRule } from './order.ts'
import type { Route } from './packing.ts'
import { DEFAULT_PRIORITY } from './priority.ts'
import { ruleOf } from './unique.ts'

/** A job as a publish names it. */
export type Named = Pick<JobDefinition<never>, 'name' | 'stream' | 'schema' | 'version' | 'unique' | 'orderBy'> | string

export const NO_OPTIONS: AnyPublishOptions = {}

export interface RouterRules<Target> {
  readonly timeoutMs: number
  readonly durability: Durability
  readonly buffer: BufferRules
  /** The batcher of a stream, whose name is not checked yet. */
  readonly batcherOf: (stream: string) => Target
  /** This machine's time, in ms since the epoch. */
  readonly nowMs: () => number
  /** Where the end of a job is told whose result is wanted. */
  readonly replyTo?: () => string
}

/** Checks what a publish was given, and says where it goes. */
export class Router<Target extends Pick<Batcher, 'numbers'> = Batcher> {
  readonly #rules: RouterRules<Target>
  readonly #names = new Set<string>()
  /** What was published by name, of jobs whose definition says more than the name. */
  readonly #kinds = new Map<string, Kind>()

  constructor(rules: RouterRules<Target>) {
    this.#rules = rules
  }

  /** @throws PublishError for an option or a name that cannot be. */
  route(job: Named, options: AnyPublishOptions): Route<Target> {
    try {
      if (options !== NO_OPTIONS) refuseUnknownKeys('publish', options, PUBLISH_KNOWN)
      const name = typeof job === 'string' ? job : job?.name
      if (!this.#names.has(name)) this.#rememberName(checkJobName(name))
      const stream = options.stream ?? (typeof job === 'string' ? undefined : job.stream)
      if (stream === undefined) throw new OptionError(`expected \`stream\`: job ${name} does not say where it goes`)
      return this.#routeOf(job, { name, stream, options })
    } catch (error) {
      throw refusal(error)
    }
  }

  /** The same for a `publishMany`, which waits for Redis whatever the producer does. */
  routeMany(job: Named, options: AnyPublishOptions): Route<Target> {
    const { durability, idempotencyToken, tokenTtlMs, uniqueKey, result } = options ?? {}
    if (durability === 'buffered') {
      throw refused("expected no `durability: 'buffered'` of publishMany, which waits until Redis has every job")
    }
    if (idempotencyToken !== undefined || tokenTtlMs !== undefined) {
      throw refused('expected no `idempotencyToken` of publishMany: all but the first of its jobs would be duplicates')
    }
    if (result !== undefined) {
      throw refused('expected no `result` of publishMany, which gives back no job: publish those one by one')
    }
    if (uniqueKey !== undefined) {
      throw refused(
        'expected no `uniqueKey` of publishMany: give the definition of the job `unique`, with a key for each payload',
      )
    }
    const route = this.route(job, options)
    // Nobody waits for each single one of them.
    return route.isBuffered ? { ...route, isBuffered: false, timeoutMs: route.maxAgeMs } : route
  }

  #routeOf(job: Named, asked: { name: string; stream: string; options: AnyPublishOptions }): Route<Target> {
    const { name, stream, options } = asked
    const kind = typeof job === 'string' || (job.schema === undefined && job.version === undefined) ? undefined : job
    if (kind !== undefined) this.#checkKind(name, kind)
    const { buffer, nowMs } = this.#rules
    const timeoutMs = wholeNumber('timeoutMs', options.timeoutMs, { or: this.#rules.timeoutMs })
    const due = resolveDue(options, nowMs())
    const durability =
      options.durability === undefined ? this.#rules.durability : (checkDurability(options.durability) ?? 'redis')
    const priority = options.bufferPriority === undefined ? DEFAULT_PRIORITY : checkPriority(options.bufferPriority)
    const token = checkToken(options)
    const unique = uniqueRule(job, options, due !== undefined)
    const signal = checkSignal(options.signal)
    const result = options.result === undefined ? undefined : checkResult(options.result)
    if (result !== undefined && durability === 'buffered') {
      throw new OptionError("expected no `result` with `durability: 'buffered'`, which resolves before there is a job")
    }
    const batcher = this.#rules.batcherOf(stream)
    const extra = extraFields(job, options, nowMs)
    const to = result && this.#rules.replyTo?.()
    const reply = result && to !== undefined ? ['reply', replyText({ ...result, to })] : undefined
    return {
      batcher,
      name,
      timeoutMs,
      maxAgeMs: buffer.maxAgeMs[priority] ?? timeoutMs,
      isBuffered: durability === 'buffered',
      replicas: typeof durability === 'object' ? durability : undefined,
      priority,
      due,
      token,
      unique,
      order: orderRule(typeof job === 'string' ? undefined : job, options),
      signal,
      trace: undefined,
      traceBytes: 0,
      schema: kind?.schema,
      extra: reply === undefined ? extra : [...(extra ?? []), ...reply],
      result,
      headers: options.headers === undefined ? undefined : packHeaders(options.headers)?.fields,
      numbers: batcher.numbers.jobs.of(name),
    }
  }

  /** Two of one name: the worker has one, and what the other publishes it cannot take. */
  #checkKind(name: string, kind: Kind): void {
    const known = this.#kinds.get(name)
    if (known === kind) return
    checkKind(name, kind)
    if (known !== undefined && !isSameKind(known, kind)) {
      throw new OptionError(
        `expected one definition of job ${name}, got two with another schema or version: define it once`,
      )
    }
    if (this.#kinds.size >= 1000) this.#kinds.clear()
    this.#kinds.set(name, kind)
  }

  /** Names that were checked need no second check; hostile callers must not make the set grow without end. */
  #rememberName(name: string): void {
    if (this.#names.size >= 1000) this.#names.clear()
    this.#names.add(name)
  }
}

/** Most publishes know no uniqueness, and look at no more than this. */
function uniqueRule(job: Named, options: AnyPublishOptions, isLater: boolean): Route['unique'] {
  const definition = typeof job === 'string' ? undefined : job.unique
  const { uniqueKey, unique } = options
  if (definition === undefined && uniqueKey === undefined && unique === undefined) return undefined
  return ruleOf({ uniqueKey, ...(unique !== undefined && { unique }), isLater }, definition)
}

/** What is wrong with an option of a publish is a PublishError, whose job is not in Redis. */
export function refusal(error: unknown): unknown {
  return error instanceof OptionError ? new PublishError(error.code, error.message, { published: 'no' }) : error
}

/** Undefined in the common case. */
function extraFields(job: Named, options: AnyPublishOptions, nowMs: () => number): readonly string[] | undefined {
  const { version, expiresAt, ttlMs } = options
  const isFirst = typeof job === 'string' || (job.version ?? 1) === 1
  if (isFirst && version === undefined && expiresAt === undefined && ttlMs === undefined) return undefined
  const expires = resolveDeadline(options, nowMs())
  const fields = [
    ...versionFields({ version: versionOf(job, version) }),
    ...(expires === undefined ? [] : ['expires', expires]),
  ]
  return fields.length === 0 ? undefined : fields
}

function refused(why: string): PublishError {
  return new PublishError('ERR_OPTION', why, { published: 'no' })
}
