import { describe, expect, test } from 'vitest'
import { compileWhere, WhereError, type WhereSubject } from '../src/where.ts'

const subject = (over: Partial<WhereSubject> = {}): WhereSubject => ({
  id: '1795245552380-0',
  job: 'send-receipt',
  json: '{"order":42,"total":1.5,"lines":[{"sku":"a"},{"sku":"b"}],"note":null}',
  headers: { tenant: 'acme' },
  ...over,
})

const ask = (expression: string, over?: Partial<WhereSubject>) => compileWhere(expression).test(subject(over))

describe('an expression over jobs', () => {
  test.each([
    ['job == "send-receipt" && data.order > 40', true],
    ['job == "send-receipt" && data.order > 42', false],
    ['data.order == 42 && data.total == 1.5', true],
    ['data.order % 2 == 0 && data.order + 1 == 43 && data.order / 2 == 21.0', true],
    ['data.order in [41, 42]', true],
    ['data.lines[1].sku == "b" && data.lines.exists(line, line.sku == "a")', true],
    ['headers.tenant == "acme"', true],
    ['has(headers.user)', false],
    ['has(data.missing) && data.missing == 1', false],
    ['data.note == null', true],
    ['id.startsWith("1795")', true],
    ['job.matches("^send-")', true],
  ])('%s is %s', (expression, expected) => {
    expect(ask(expression)).toBe(expected)
  })

  test('a path that a payload does not have is no match, and says why', () => {
    expect(ask('data.missing == 1')).toBe('No such key: missing')
    expect(ask('data.missing == 1', { json: undefined })).toMatch(/missing|null|No such/)
  })

  test('a payload that is no JSON is no match, and says why', () => {
    expect(ask('data.order == 1', { json: '{"order":' })).toBe('its data is not JSON')
    expect(ask('job == "send-receipt"', { json: '{"order":' })).toBe(true)
  })

  test('what gives neither true nor false is no match, and says so', () => {
    expect(ask('data.order')).toBe('it gives neither true nor false')
  })

  test('reaches nothing but the job', () => {
    for (const path of ['data.constructor', 'data.__proto__', 'job.constructor', 'headers.toString']) {
      const told = () => ask(`${path} != null`)
      let answer: unknown
      try {
        answer = told()
      } catch (error) {
        answer = error
      }
      expect(answer).not.toBe(true)
    }
    expect(() => compileWhere('process.exit(1) == 1')).toThrow(WhereError)
    expect(() => compileWhere('globalThis == 1')).toThrow(WhereError)
  })
})

describe('a bad expression', () => {
  test.each([
    ['job == "a" &&', 13],
    ['jobb == "a"', 0],
    ['data.order > 40 && jobb == "a"', 19],
    ['job = "a"', 4],
    ["job == 'a", 7],
    ['', 0],
    ['job', 0],
    ['1 + 1', 0],
    ['data.order > 40)', 15],
  ])('%j is refused, pointing at character %i', (expression, at) => {
    const refused = (() => {
      try {
        compileWhere(expression)
      } catch (error) {
        return error
      }
    })()
    expect(refused).toBeInstanceOf(WhereError)
    expect(refused).toMatchObject({ code: 'ERR_OPTION', expression, at })
    expect((refused as Error).message).toMatch(/^expected `where` to be a condition .* at character \d+$/)
  })

  test('no text, or one without end, is refused', () => {
    expect(() => compileWhere(42)).toThrow('expected `where` to be a condition')
    expect(() => compileWhere('a'.repeat(10_001))).toThrow('up to 10000 characters')
  })
})
