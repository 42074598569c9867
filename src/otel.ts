import {
  type Attributes,
  context,
  type Context,
  type Link,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
  type TracerProvider,
} from '@opentelemetry/api'
import { messageOf, OptionError, textOf } from './errors.ts'
import { refuseUnknownKeys, shown } from './options.ts'
import { readContext, readTraceparent, writtenContext } from './trace-context.ts'
import type {
  PublishEnd,
  PublishToTrace,
  RunOutcome,
  RunToTrace,
  SettleToTrace,
  TracedPublish,
  TracedRun,
  TracedSettle,
  Tracing,
} from './tracing.ts'
import { versionOfPackage } from './version.ts'
import type { TraceContext } from './wire.ts'

/**
 * The entry point `millrace/otel`, and the only place that knows OpenTelemetry: spans by its conventions for messaging. What
 * they are called and what they say is in docs/tracing.md.
 *
 * Without an SDK nothing is made: it is looked for each time, which costs nanoseconds, so that one that is registered late is
 * found.
 */

export interface OpenTelemetryOptions {
  /** Whose tracer makes the spans. @default the one that an SDK has registered, also if it does so later */
  tracerProvider?: TracerProvider
}

/** What a producer and a worker take as `tracing`. @throws OptionError on an unknown or impossible option. */
export function openTelemetry(options: OpenTelemetryOptions = {}): Tracing {
  refuseUnknownKeys('openTelemetry', options, ['tracerProvider'])
  const { tracerProvider } = options
  if (tracerProvider !== undefined && typeof (tracerProvider as Partial<TracerProvider>)?.getTracer !== 'function') {
    throw new OptionError(`expected \`tracerProvider\` to have a method getTracer, got ${shown(tracerProvider)}`)
  }
  const tracers = new Tracers(tracerProvider)
  return {
    publish: (about) => {
      const tracer = tracers.current()
      return tracer && new PublishSpan(startPublish(tracer, about), about)
    },
    process: (job) => {
      const tracer = tracers.current()
      return tracer && new RunSpan(tracer, job)
    },
    settle: (about) => {
      const tracer = tracers.current()
      return tracer && startSettle(tracer, about)
    },
    flush: () => tracers.flush(),
  }
}

/** The most links of one span; SDKs keep no more. */
const MOST_LINKS = 128

/**
 * Finds the tracer, if anybody wants spans. Where no SDK is registered, or not yet, the API answers with a stand-in that makes
 * empty spans: what stands behind that tells.
 */
class Tracers {
  readonly #given: TracerProvider | undefined
  #provider: TracerProvider | undefined
  #tracer: Tracer | undefined

  constructor(given: TracerProvider | undefined) {
    this.#given = given
  }

  current(): Tracer | undefined {
    const registered: TracerProvider & Partial<StandIn> = this.#given ?? trace.getTracerProvider()
    const provider = registered.getDelegate === undefined ? registered : registered.getDelegate()
    if (provider !== this.#provider) {
      this.#provider = provider
      const from = registered.getDelegateTracer === undefined ? 'getTracer' : 'getDelegateTracer'
      this.#tracer = registered[from]?.('millrace', versionOfPackage())
    }
    return this.#tracer
  }

  /** SDKs send spans in batches, and have a method for it that the API does not know. */
  async flush(): Promise<void> {
    this.current()
    const provider: (TracerProvider & { forceFlush?(): Promise<void> }) | undefined = this.#provider
    await provider?.forceFlush?.()
  }
}

interface StandIn {
  getDelegate(): TracerProvider
  getDelegateTracer(name: string, version: string): Tracer | undefined
}

function startPublish(tracer: Tracer, { stream, job }: PublishToTrace): Span {
  const attributes = {
    'messaging.system': 'redis',
    'messaging.operation.type': 'send',
    'messaging.operation.name': 'send',
    'messaging.destination.name': stream,
    'millrace.job.name': job,
  }
  return tracer.startSpan(`send ${stream}`, { kind: SpanKind.PRODUCER, attributes }, context.active())
}

class PublishSpan implements TracedPublish {
  readonly #span: Span
  readonly #isMany: boolean
  readonly context: TraceContext | undefined

  constructor(span: Span, { isMany }: PublishToTrace) {
    this.#span = span
    this.#isMany = isMany
    this.context = writtenContext(span)
  }

  ended({ published, id, error }: PublishEnd): void {
    if (this.#isMany) this.#span.setAttribute('messaging.batch.message_count', published)
    if (id !== undefined) this.#span.setAttribute('messaging.message.id', id)
    end(this.#span, error === undefined ? undefined : { error })
  }
}

/**
 * A run. The first one goes on with the trace of its publish; a later one, which may be hours or a thousand attempts later,
 * begins a trace, with links to the publish and to the attempt before it.
 */
class RunSpan implements TracedRun {
  readonly span: Span
  readonly #context: Context

  constructor(tracer: Tracer, job: RunToTrace) {
    const { stream, isFirstRun } = job
    const { publish, last } = job.trace
    const from = readContext(publish)
    // Not the active one: a worker that was started within a span would put all of its jobs into that.
    const parent = isFirstRun && from !== undefined ? trace.setSpanContext(ROOT_CONTEXT, from) : ROOT_CONTEXT
    const links = isFirstRun ? [] : [...linkTo('publish', from), ...linkTo('attempt', readTraceparent(last))]
    const about = { kind: SpanKind.CONSUMER, attributes: attributesOf(job), links }
    this.span = tracer.startSpan(`process ${stream}`, about, parent)
    this.#context = trace.setSpan(parent, this.span)
  }

  get context(): TraceContext | undefined {
    return writtenContext(this.span)
  }

  run<Result>(work: () => Result): Result {
    return context.with(this.#context, work)
  }

  ended(outcome: RunOutcome, error?: unknown): void {
    this.span.setAttribute('millrace.job.outcome', outcome)
    // Cut short on purpose: what the handler threw then is no failure. Else it is one, also if it threw undefined.
    end(this.span, NO_FAILURE.includes(outcome) ? undefined : { error })
  }
}

const NO_FAILURE: readonly RunOutcome[] = ['completed', 'cancelled', 'handed-back']

/** In the trace of its run if there is one; a batch of several is in none of theirs, and linked to all. */
function startSettle(tracer: Tracer, about: SettleToTrace): TracedSettle | undefined {
  const { stream, group, consumer, operation, jobs, runs } = about
  const spans = runs.flatMap((run) => (run instanceof RunSpan && isSampled(run.span) ? [run.span] : []))
  const [first] = spans
  if (first === undefined) return undefined
  const attributes = {
    'messaging.system': 'redis',
    'messaging.operation.type': 'settle',
    'messaging.operation.name': operation,
    'messaging.destination.name': stream,
    'messaging.consumer.group.name': group,
    'messaging.client.id': consumer,
    'messaging.batch.message_count': jobs,
  }
  const links = spans.slice(0, MOST_LINKS).map((span) => ({ context: span.spanContext() }))
  const parent = spans.length === 1 ? trace.setSpan(ROOT_CONTEXT, first) : ROOT_CONTEXT
  const span = tracer.startSpan(`${operation} ${stream}`, { kind: SpanKind.CLIENT, attributes, links }, parent)
  return { ended: (error) => end(span, error === undefined ? undefined : { error }) }
}

function isSampled(span: Span): boolean {
  return (span.spanContext().traceFlags & 1) === 1
}

function linkTo(what: 'publish' | 'attempt', to: SpanContext | undefined): Link[] {
  return to === undefined ? [] : [{ context: to, attributes: { 'millrace.link': what } }]
}

/** Written out: there is one of these per job, and objects that are put together of others cost ten times as much. */
function attributesOf({ stream, group, consumer, id, name, attempt, deliveries }: RunToTrace): Attributes {
  return {
    'messaging.system': 'redis',
    'messaging.operation.type': 'process',
    'messaging.operation.name': 'process',
    'messaging.destination.name': stream,
    'messaging.consumer.group.name': group,
    'messaging.client.id': consumer,
    'messaging.message.id': id,
    'millrace.job.name': name,
    'millrace.job.attempt': attempt,
    'millrace.job.deliveries': deliveries,
  }
}

/** Ends it in any case: what handlers throw may itself throw when it is looked at. */
function end(span: Span, failure: { readonly error: unknown } | undefined): void {
  try {
    if (failure !== undefined && span.isRecording()) fail(span, failure.error)
  } finally {
    span.end()
  }
}

function fail(span: Span, error: unknown): void {
  const name = textOf(() => (error instanceof Error ? error.name : typeof error))
  const type = textOf(() => (isCode((error as { code?: unknown })?.code) ? (error as { code: string }).code : name))
  const stack = textOf(() => (error instanceof Error ? error.stack : undefined) ?? '')
  const message = messageOf(error)
  span.setAttribute('error.type', type.slice(0, 100))
  span.recordException({ name, message, ...(stack !== '' && { stack }) })
  span.setStatus({ code: SpanStatusCode.ERROR, message })
}

/** As Node's and ours: ECONNREFUSED, ERR_JOB_TIMEOUT. */
function isCode(code: unknown): code is string {
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]{2,60}$/.test(code)
}
