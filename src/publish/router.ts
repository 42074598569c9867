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
import type { Batcher } from './batcher.ts'
import { resolveDue } from './due.ts'
import type { Durability } from './durability.ts'
import type { Route } from './packing.ts'
import { DEFAULT_PRIORITY } from './priority.ts'

/** A job as a publish names it. */
export type Named = Pick<JobDefinition, 'name' | 'stream'> | string

export const NO_OPTIONS: AnyPublishOptions = {}

export interface RouterRules {
  readonly timeoutMs: number
  readonly durability: Durability
  readonly buffer: BufferRules
  /** The batcher of a stream, whose name is not checked yet. */
  readonly batcherOf: (stream: string) => Batcher
}

/** Checks what a publish was given, and says where it goes. */
export class Router {
  readonly #rules: RouterRules
  readonly #names = new Set<string>()

  constructor(rules: RouterRules) {
    this.#rules = rules
  }

  /** @throws PublishError for an option or a name that cannot be. */
  route(job: Named, options: AnyPublishOptions): Route {
    try {
      if (options !== NO_OPTIONS) refuseUnknownKeys('publish', options, PUBLISH_KNOWN)
      const name = typeof job === 'string' ? job : job?.name
      if (!this.#names.has(name)) this.#rememberName(checkJobName(name))
      const stream = options.stream ?? (typeof job === 'string' ? undefined : job.stream)
      if (stream === undefined) throw new OptionError(`expected \`stream\`: job ${name} does not say where it goes`)
      return this.#routeOf(name, stream, options)
    } catch (error) {
      throw refusal(error)
    }
  }

  /** The same for a `publishMany`, which waits for Redis whatever the producer does. */
  routeMany(job: Named, options: AnyPublishOptions): Route {
    const { durability, idempotencyToken, tokenTtlMs } = options ?? {}
    if (durability === 'buffered') {
      throw refused("expected no `durability: 'buffered'` of publishMany, which waits until Redis has every job")
    }
    if (idempotencyToken !== undefined || tokenTtlMs !== undefined) {
      throw refused('expected no `idempotencyToken` of publishMany: all but the first of its jobs would be duplicates')
    }
    const route = this.route(job, options)
    // Nobody waits for each single one of them.
    return route.isBuffered ? { ...route, isBuffered: false, timeoutMs: route.maxAgeMs } : route
  }

  #routeOf(name: string, stream: string, options: AnyPublishOptions): Route {
    const { buffer } = this.#rules
    const timeoutMs = wholeNumber('timeoutMs', options.timeoutMs, { or: this.#rules.timeoutMs })
    const due = resolveDue(options, Date.now())
    const durability =
      options.durability === undefined ? this.#rules.durability : (checkDurability(options.durability) ?? 'redis')
    const priority = options.bufferPriority === undefined ? DEFAULT_PRIORITY : checkPriority(options.bufferPriority)
    const token = checkToken(options)
    const signal = checkSignal(options.signal)
    const batcher = this.#rules.batcherOf(stream)
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
      signal,
      trace: undefined,
      traceBytes: 0,
      headers: options.headers === undefined ? undefined : packHeaders(options.headers),
      numbers: batcher.numbers.jobs.of(name),
    }
  }

  /** Names that were checked need no second check; hostile callers must not make the set grow without end. */
  #rememberName(name: string): void {
    if (this.#names.size >= 1000) this.#names.clear()
    this.#names.add(name)
  }
}

/** What is wrong with an option of a publish is a PublishError, whose job is not in Redis. */
export function refusal(error: unknown): unknown {
  return error instanceof OptionError ? new PublishError(error.code, error.message, { published: 'no' }) : error
}

function refused(why: string): PublishError {
  return new PublishError('ERR_OPTION', why, { published: 'no' })
}
