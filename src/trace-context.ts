import {
  createTraceState,
  INVALID_SPANID,
  INVALID_TRACEID,
  TraceFlags,
  type Span,
  type SpanContext,
} from '@opentelemetry/api'
import type { TraceContext } from './wire.ts'

/**
 * The W3C's trace context, written and read here: so it travels whether or not a propagator is set up, and the same from a
 * producer in any language. What an entry says of it is anybody's text: what is not exactly of the form counts as nothing.
 */

/** Versions after 00 may go on behind the flags; ff is none. */
const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.{0,200})?$/
/** What W3C has everybody carry; more is not worth a job's bytes. */
const MOST_STATE = 512

/** How a span is written into an entry; undefined for one that is none. */
export function writtenContext(span: Span): TraceContext | undefined {
  const { traceId, spanId, traceFlags, traceState } = span.spanContext()
  if (traceId === INVALID_TRACEID || spanId === INVALID_SPANID) return undefined
  const traceparent = `00-${traceId}-${spanId}-0${traceFlags & TraceFlags.SAMPLED}`
  const tracestate = traceState?.serialize()
  return tracestate === undefined || tracestate === '' || tracestate.length > MOST_STATE
    ? { traceparent }
    : { traceparent, tracestate }
}

/** Undefined where it is not what the W3C says. */
export function readContext(given: TraceContext | undefined): SpanContext | undefined {
  const read = readTraceparent(given?.traceparent)
  const { tracestate } = given ?? {}
  if (read === undefined || tracestate === undefined || tracestate.length > MOST_STATE) return read
  return { ...read, traceState: createTraceState(tracestate) }
}

export function readTraceparent(text: string | undefined): SpanContext | undefined {
  const [, version, traceId = '', spanId = '', flags = '', more] = TRACEPARENT.exec(text ?? '') ?? []
  if (version === undefined || (version === '00' && more !== undefined)) return undefined
  if (traceId === INVALID_TRACEID || spanId === INVALID_SPANID) return undefined
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & TraceFlags.SAMPLED, isRemote: true }
}
