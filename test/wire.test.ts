import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeJob, decodeRaw, encodeJob, jobIdOf } from '../src/wire.ts'

const ENTRY = '1700000000000-3'
const MAX_ID = '18446744073709551615-18446744073709551615'
const REPLACEMENT = '\uFFFD'

/** A job of this data, with more fields after it. */
const withFields = (...more: string[]): string[] => ['job', 'x', 'data', '1', ...more]

describe('decode', () => {
  test('reads what encode wrote', () => {
    const decoded = decodeJob(ENTRY, encodeJob('send-receipt', '{"order":42}'))
    expect(decoded).toMatchObject({ kind: 'job', name: 'send-receipt', data: { order: 42 }, id: ENTRY, failed: 0 })
  })

  test('takes absent data for null', () => {
    expect(decodeJob(ENTRY, ['job', 'x'])).toMatchObject({ kind: 'job', data: null })
  })

  test('takes fields in any order and passes over those it does not know', () => {
    const fields = [
      'h-trace',
      'a',
      'data',
      '[1]',
      'attempt',
      '2',
      '__proto__',
      'b',
      'id',
      '7-8',
      'job',
      'x',
      'codec',
      'json',
    ]
    expect(decodeJob(ENTRY, fields)).toMatchObject({ kind: 'job', name: 'x', data: [1], id: '7-8', failed: 2 })
  })

  test('counts the first of duplicate fields, also where the later ones are bad', () => {
    const first = ['job', 'x', 'data', '1', 'id', '1-1', 'attempt', '1', 'codec', 'json']
    const later = ['job', ' ', 'data', '{', 'id', 'a', 'attempt', 'b', 'codec', 'c']
    const expected = { kind: 'job', name: 'x', data: 1, id: '1-1', failed: 1 }
    expect(decodeJob(ENTRY, [...first, ...later])).toMatchObject(expected)
    expect(decodeJob(ENTRY, [...later, ...first])).toMatchObject({ kind: 'malformed' })
  })

  test('is not tempted by a value that is called like a field', () => {
    expect(decodeJob(ENTRY, ['note', 'job', 'x', 'data'])).toMatchObject({ kind: 'malformed' })
  })

  test.each([
    ['no field job', [], /no field job/],
    ['a lone field', ['job'], /no field job/],
    ['an empty name', ['job', ''], /job name/],
    ['a name with a space', ['job', 'a b'], /job name/],
    ['a name that ends in a line feed', ['job', 'x\n'], /job name/],
    ['a name of 101 characters', ['job', 'x'.repeat(101)], /job name/],
    ['empty data', ['job', 'x', 'data', ''], /not JSON/],
    ['half of an object', ['job', 'x', 'data', '{"a":'], /not JSON/],
    ['what JavaScript reads and JSON does not', ['job', 'x', 'data', 'undefined'], /not JSON/],
    ['an unknown codec', withFields('codec', 'msgpack'), /codec/],
  ])('finds %s malformed and says why', (_what, fields, why) => {
    const decoded = decodeJob(ENTRY, fields)
    expect(decoded).toMatchObject({ kind: 'malformed' })
    expect((decoded as { why: string }).why).toMatch(why)
  })

  test('never quotes the payload in its reason', () => {
    expect(JSON.stringify(decodeJob(ENTRY, ['job', 'card 4111', 'data', 'card 4111']))).not.toContain('4111')
    expect(JSON.stringify(decodeJob(ENTRY, ['job', 'x', 'data', '{"card":4111'])).includes('4111')).toBe(false)
  })

  test('reads data nested 200 000 deep', () => {
    const decoded = decodeJob(ENTRY, encodeJob('x', '['.repeat(200_000) + ']'.repeat(200_000)))
    let depth = 0
    for (let at = (decoded as { data?: unknown }).data; Array.isArray(at); at = (at as unknown[])[0]) depth += 1
    expect([decoded.kind, depth]).toEqual(['job', 200_000])
  })

  test('finds data nested 200 000 deep that never ends malformed', () => {
    expect(decodeJob(ENTRY, encodeJob('x', '['.repeat(200_000)))).toMatchObject({ kind: 'malformed' })
  })

  test('leaves prototypes clean, whatever keys the data has', () => {
    const json = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}'
    const decoded = decodeJob(ENTRY, ['__proto__', 'polluted', ...encodeJob('x', json)])
    const { data } = decoded as { data: object }
    expect(Object.getPrototypeOf(data)).toBe(Object.prototype)
    expect(Object.keys(data)).toEqual(['__proto__', 'constructor'])
    expect('polluted' in {}).toBe(false)
  })
})

describe('the fields id and attempt', () => {
  test.each(['0-1', '7-8', '1700000000000-0', MAX_ID])('id %s is the job id', (id) => {
    expect(decodeJob(ENTRY, withFields('id', id))).toMatchObject({ kind: 'job', id })
    expect(jobIdOf(ENTRY, withFields('id', id))).toBe(id)
  })

  test.each([
    '',
    '1',
    '1-',
    '-1',
    '-1-1',
    '1-*',
    '*',
    '$',
    '1-1-1',
    ' 1-1',
    '1-1\n',
    '1e3-1',
    '٣-١',
    '18446744073709551616-0',
    '0-18446744073709551616',
    '1'.repeat(100_000),
    'dead 1-1',
  ])('id %j is malformed, and the entry goes by its own', (id) => {
    expect(decodeJob(ENTRY, withFields('id', id))).toMatchObject({ kind: 'malformed' })
    expect(jobIdOf(ENTRY, withFields('id', id))).toBe(ENTRY)
  })

  test('an entry id of 64 bits is a job id as it is', () => {
    expect(decodeJob(MAX_ID, ['job', 'x'])).toMatchObject({ kind: 'job', id: MAX_ID })
  })

  test.each([
    ['0', 0],
    ['7', 7],
    ['999999999', 999_999_999],
  ])('attempt %s is a count', (attempt, failed) => {
    expect(decodeJob(ENTRY, withFields('attempt', attempt))).toMatchObject({ kind: 'job', failed })
  })

  test.each(['', '-1', '+1', '1.5', '1e3', '0x10', ' 1', '1\n', 'NaN', 'Infinity', '9999999999', '٣'])(
    'attempt %j is malformed',
    (attempt) => {
      expect(decodeJob(ENTRY, withFields('attempt', attempt))).toMatchObject({ kind: 'malformed' })
    },
  )
})

describe('the fields that few jobs have', () => {
  const extraOf = (...fields: string[]) => {
    const decoded = decodeJob(ENTRY, withFields(...fields))
    return decoded.kind === 'job' ? decoded.extra : decoded
  }

  test('are not there in the common case, whatever else there is', () => {
    expect(extraOf()).toBeUndefined()
    expect(extraOf('traceparent', 'a', 'note', 'b', 'h', 'c')).toBeUndefined()
  })

  test('are read', () => {
    const fields = ['expires', '1700000000000', 'unique', 'order:42', 'unique-until', 'started', 'version', '3']
    expect(
      extraOf(...fields, 'waited-since', '5', 'past-deliveries', '2', 'granted', 'a b', 'h-Request-Id', 'r1'),
    ).toEqual({
      expiresMs: 1_700_000_000_000,
      unique: { key: 'order:42', until: 'started' },
      version: 3,
      waitedSinceMs: 5,
      pastDeliveries: 2,
      granted: 'a b',
      headers: { 'request-id': 'r1' },
    })
    expect(extraOf('unique', 'k')).toEqual({ unique: { key: 'k', until: 'settled' } })
    expect(extraOf('unique', 'k', 'unique-until', 'ttl')).toEqual({ unique: { key: 'k', until: 'ttl' } })
  })

  test('count once: the first of duplicates', () => {
    expect(extraOf('expires', '7', 'expires', 'x', 'h-a', '1', 'h-a', '2')).toEqual({
      expiresMs: 7,
      headers: { a: '1' },
    })
  })

  test.each(['', '-1', '1.5', 'soon', '1e3', '1'.repeat(16), ' 1', '1\n'])(
    'expires %j is malformed: nobody knows whether the job may still run',
    (expires) =>
      expect(extraOf('expires', expires)).toMatchObject({
        kind: 'malformed',
        why: 'its field expires is not a time in ms',
      }),
  )

  test.each([
    ['waited-since', 'x', {}],
    ['past-deliveries', '-1', {}],
    ['unique-until', 'x', {}],
    ['unique', '', { unique: { key: '', until: 'settled' } }],
    ['version', '0', { version: NaN }],
    ['version', '1.2.3', { version: NaN }],
    ['version', '9'.repeat(10), { version: NaN }],
  ])('%s %j does not keep the job from running', (name, value, expected) => {
    expect(extraOf(name, value)).toEqual(expected)
  })

  test('headers named like what objects have are headers, and leave prototypes clean', () => {
    const extra = extraOf('h-__proto__', 'a', 'h-constructor', 'b') as { headers: object }
    expect(Object.entries(extra.headers)).toEqual([
      ['__proto__', 'a'],
      ['constructor', 'b'],
    ])
    expect('a' in {}).toBe(false)
  })
})

describe('text that may not be what was written', () => {
  test('is suspect where a replacement character is in the data, and in nothing else', () => {
    expect(decodeJob(ENTRY, ['job', 'x', 'data', `"${REPLACEMENT}"`])).toMatchObject({ kind: 'suspect' })
    expect(decodeJob(ENTRY, withFields('note', REPLACEMENT))).toMatchObject({ kind: 'job', data: 1 })
    expect(decodeJob(ENTRY, withFields('data', REPLACEMENT))).toMatchObject({ kind: 'job', data: 1 })
  })

  test('is a job after all where its bytes hold that character', () => {
    const raw = ['job', 'x', 'data', `"${REPLACEMENT}"`].map((field) => Buffer.from(field))
    expect(decodeRaw(ENTRY, raw)).toMatchObject({ kind: 'job', data: REPLACEMENT })
  })

  test.each([
    ['a lone byte', Buffer.from([0x22, 0xff, 0x22])],
    ['a cut sequence', Buffer.from([0x22, 0xc3, 0x22])],
    ['a surrogate', Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])],
  ])('is malformed where its bytes are no UTF-8: %s', (_what, data) => {
    const raw = [Buffer.from('job'), Buffer.from('x'), Buffer.from('data'), data]
    expect(decodeRaw(ENTRY, raw)).toEqual({ kind: 'malformed', why: 'its data is not UTF-8' })
  })

  test('is judged by the first of duplicate data fields', () => {
    const bad = Buffer.from([0xff])
    const raw = [...withFields().map((field) => Buffer.from(field)), Buffer.from('data'), bad]
    expect(decodeRaw(ENTRY, raw)).toMatchObject({ kind: 'job', data: 1 })
  })
})

test('no fields of any kind make decode throw', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('job', 'data', 'id', 'attempt', 'codec', 'x', '1-1', '1', '{}', '__proto__', REPLACEMENT),
    fc.constantFrom('expires', 'unique', 'unique-until', 'version', 'waited-since', 'granted', 'h-', 'h-__proto__'),
  )
  fc.assert(
    fc.property(fc.array(text, { maxLength: 12 }), (fields) => {
      expect(['job', 'malformed', 'suspect']).toContain(decodeJob(ENTRY, fields).kind)
      const raw = fields.map((field) => Buffer.from(field))
      expect(['job', 'malformed']).toContain(decodeRaw(ENTRY, raw).kind)
    }),
    { numRuns: 2000 },
  )
})
