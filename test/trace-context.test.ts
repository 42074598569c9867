import { createTraceState, trace, type SpanContext } from '@opentelemetry/api'
import { describe, expect, test } from 'vitest'
import { readContext, readTraceparent, writtenContext } from '../src/trace-context.ts'
import { traceFields, traceOf } from '../src/wire.ts'

const traceId = '0af7651916cd43dd8448eb211c80319c'
const spanId = 'b7ad6b7169203331'
const span = (context: Partial<SpanContext> = {}) =>
  trace.wrapSpanContext({ traceId, spanId, traceFlags: 1, ...context })

describe('traceparent', () => {
  test.each([
    [`00-${traceId}-${spanId}-01`, 1],
    [`00-${traceId}-${spanId}-00`, 0],
    [`00-${traceId}-${spanId}-03`, 1],
    [`cc-${traceId}-${spanId}-01-what-a-later-version-adds`, 1],
  ])('%s is read', (text, traceFlags) => {
    expect(readTraceparent(text)).toEqual({ traceId, spanId, traceFlags, isRemote: true })
  })

  test.each([
    ['nothing', undefined],
    ['an empty text', ''],
    ['a version that is none', `ff-${traceId}-${spanId}-01`],
    ['more than version 00 has', `00-${traceId}-${spanId}-01-more`],
    ['capital letters', `00-${traceId.toUpperCase()}-${spanId}-01`],
    ['a trace of zeros', `00-${'0'.repeat(32)}-${spanId}-01`],
    ['a span of zeros', `00-${traceId}-${'0'.repeat(16)}-01`],
    ['a trace that is too short', `00-${traceId.slice(1)}-${spanId}-01`],
    ['a line after it', `00-${traceId}-${spanId}-01\n`],
    ['a space before it', ` 00-${traceId}-${spanId}-01`],
    ['a mebibyte', `cc-${traceId}-${spanId}-01-${'x'.repeat(1 << 20)}`],
    ['control characters', `00-${traceId}-${spanId}-0\u0007`],
  ])('%s counts as nothing', (_what, text) => {
    expect(readTraceparent(text)).toBeUndefined()
  })
})

describe('a context', () => {
  test('that is written is read again, with its state', () => {
    const written = writtenContext(span({ traceState: createTraceState('a=1,b=2') }))
    expect(written).toEqual({ traceparent: `00-${traceId}-${spanId}-01`, tracestate: 'a=1,b=2' })
    const read = readContext(traceOf(['job', 'mail', ...traceFields(written ?? { traceparent: '' })]).publish)
    expect([read?.traceId, read?.spanId, read?.traceState?.serialize()]).toEqual([traceId, spanId, 'a=1,b=2'])
  })

  test('of a span that is none is not written, nor is an empty state, or one that is too long', () => {
    expect(writtenContext(span({ traceId: '0'.repeat(32) }))).toBeUndefined()
    const long = createTraceState(Array.from({ length: 30 }, (_, at) => `key${at}=${'v'.repeat(20)}`).join(','))
    for (const traceState of [createTraceState(''), long]) {
      expect(writtenContext(span({ traceState, traceFlags: 0 }))).toEqual({ traceparent: `00-${traceId}-${spanId}-00` })
    }
  })

  test('with a state that is no state, or too long, is read without it', () => {
    const traceparent = `00-${traceId}-${spanId}-01`
    expect(readContext({ traceparent, tracestate: 'x'.repeat(513) })).not.toHaveProperty('traceState')
    expect(readContext({ traceparent, tracestate: '\u0000=;;,=' })?.traceState?.serialize()).toBe('')
    expect(readContext({ traceparent: 'none', tracestate: 'a=1' })).toBeUndefined()
  })

  test('is read from the first of duplicate fields, whatever else there is', () => {
    const fields = ['traceparent', 'first', 'traceparent', 'second', 'trace-last', 'last', 'tracestate']
    expect(traceOf(fields)).toEqual({ publish: { traceparent: 'first', tracestate: undefined }, last: 'last' })
    expect(traceOf([])).toEqual({ publish: undefined, last: undefined })
  })
})
