import { context, trace, type Span, type Tracer } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
  type ReadableSpan,
  type Sampler,
} from '@opentelemetry/sdk-trace-base'
import { afterAll, beforeAll, beforeEach, expect } from 'vitest'
import { eventually } from './eventually.ts'

/** The SDK as a user has it, with spans kept in memory. */
export interface Spans {
  readonly provider: BasicTracerProvider
  readonly tracer: Tracer
  /** Those that have ended, whose names begin so. */
  of(start?: string): ReadableSpan[]
  /** Waits until as many have ended. */
  ended(start: string, count?: number): Promise<ReadableSpan[]>
  /** Waits until one has ended; there are not two. */
  one(start: string): Promise<ReadableSpan>
}

export interface SpansOptions {
  /** @default as the SDK has it: all */
  sampler?: Sampler
  /** Registered for the whole file. @default true */
  isRegistered?: boolean
}

export function keptSpans({ sampler, isRegistered = true }: SpansOptions = {}): Spans {
  const exporter = new InMemorySpanExporter()
  const spanProcessors = [new SimpleSpanProcessor(exporter)]
  const provider = new BasicTracerProvider({ spanProcessors, ...(sampler && { sampler }) })
  beforeAll(() => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
    if (isRegistered) trace.setGlobalTracerProvider(provider)
  })
  beforeEach(() => exporter.reset())
  afterAll(() => {
    trace.disable()
    context.disable()
  })
  const spans: Spans = {
    provider,
    tracer: provider.getTracer('test'),
    of: (start = '') => exporter.getFinishedSpans().filter(({ name }) => name.startsWith(start)),
    ended: (start, count = 1) =>
      eventually(() => {
        const found = spans.of(start)
        expect(found.map(({ name }) => name)).toHaveLength(count)
        return found
      }),
    one: async (start) => (await spans.ended(start))[0] as ReadableSpan,
  }
  return spans
}

export const spanIdOf = (span: ReadableSpan | Span): string => span.spanContext().spanId
export const traceIdOf = (span: ReadableSpan | Span): string => span.spanContext().traceId
export const parentOf = ({ parentSpanContext }: ReadableSpan): string | undefined => parentSpanContext?.spanId
export const outcomeOf = ({ attributes }: ReadableSpan): unknown => attributes['millrace.job.outcome']

/** What each of its links says that it is, and the span that it is to. */
export const linksOf = ({ links }: ReadableSpan): unknown[] =>
  links.map((link) => [link.attributes?.['millrace.link'], link.context.spanId])
