import { describe, expect, test } from 'vitest'
import { parseAge, parseDelay, parseDuration } from '../../cli/duration.ts'
import { parseDueInstant, parsePastInstant, parseZonedInstant } from '../../cli/instant.ts'

const now = Date.UTC(2026, 10, 21, 12, 0, 0)
const today = new Date(now)
const localMs = (...parts: [number, number, number, number?, number?, number?]) => new Date(...parts).getTime()
const atToday = (hours: number, minutes: number, seconds = 0) =>
  localMs(today.getFullYear(), today.getMonth(), today.getDate(), hours, minutes, seconds)

const ZONED: readonly [string, number][] = [
  ['2026-11-21T10:00:00Z', Date.UTC(2026, 10, 21, 10)],
  ['2026-11-21T15:30Z', Date.UTC(2026, 10, 21, 15, 30)],
  ['2026-11-21T10:00:00.5Z', Date.UTC(2026, 10, 21, 10) + 500],
  ['2026-11-21T15:30:05.250+05:30', Date.UTC(2026, 10, 21, 10, 0, 5, 250)],
  ['2026-11-21T10:00+02:00', Date.UTC(2026, 10, 21, 8)],
  ['2026-11-21 10:00-0530', Date.UTC(2026, 10, 21, 15, 30)],
  ['2026-11-21T10:00:00.123456789Z', Date.UTC(2026, 10, 21, 10) + 123],
  ['1795245552380', 1_795_245_552_380],
]

const LOCAL: readonly [string, number][] = [
  ['2026-11-21T10:00', localMs(2026, 10, 21, 10)],
  ['2026-11-21 10:00:05', localMs(2026, 10, 21, 10, 0, 5)],
  ['2024-02-29', localMs(2024, 1, 29)],
]

const NONE = [
  ...['', 'now', 'noon', '24:00', '10:60', '10', '1e12', '-1', '-15', '15m', '1795245552', '2026-02-30', '2026-13-01'],
  ...['2026-11-21Z', '2026-02-30T00:00Z', '2026-13-21T10:00Z', '2026-11-21T24:30Z', '2026-11-21T10:00+16:00'],
]

describe('a time on the command line', () => {
  test.each(ZONED)('%s is the same wherever it is read', (text, ms) => {
    expect(parsePastInstant('--from', text, now)).toEqual({ text, ms, isLocal: false })
    expect(parseDueInstant('--at', text, now)).toEqual({ text, ms, isLocal: false })
    expect(parseZonedInstant(text)).toBe(ms)
  })

  test.each(LOCAL)('%s is of this machine, and is not taken from a file', (text, ms) => {
    expect(parsePastInstant('--from', text, now)).toEqual({ text, ms, isLocal: true })
    expect(parseDueInstant('--at', text, now)).toEqual({ text, ms, isLocal: true })
    expect(parseZonedInstant(text)).toBeUndefined()
  })

  test.each(NONE)('is not %j', (text) => {
    const refusal = /^expected `--at` to be a time such as .*, got "/
    expect(() => parsePastInstant('--at', text, now)).toThrow(refusal)
    expect(() => parseDueInstant('--at', text, now)).toThrow(refusal)
    expect(parseZonedInstant(text)).toBeUndefined()
  })

  test.each([
    ['10:00', atToday(10, 0)],
    ['23:59', atToday(23, 59)],
    ['9:05:07', atToday(9, 5, 7)],
    ['-15m', now - 900_000],
    ['-1.5h', now - 5_400_000],
    ['-30d', now - 30 * 86_400_000],
  ])('of what is over is of today, or so long ago: %s', (text, ms) => {
    expect(parsePastInstant('--from', text, now)).toEqual({ text, ms, isLocal: true })
  })

  test('of what is due is the next time that the clock here shows it', () => {
    const due = (text: string, nowMs: number) => parseDueInstant('--at', text, nowMs).ms
    const ten = localMs(2026, 10, 30, 10)
    expect(due('10:00', ten)).toBe(ten)
    expect(due('10:30:05', ten)).toBe(localMs(2026, 10, 30, 10, 30, 5))
    expect(due('09:59', ten)).toBe(localMs(2026, 11, 1, 9, 59))
    expect(() => due('-15m', ten)).toThrow(/expected `--at` to be a time/)
  })
})

describe('a duration on the command line', () => {
  test('may be of days, but no longer than what waits for it can', () => {
    expect(parseDuration('--lease', '3d')).toBe(3 * 86_400_000)
    expect(() => parseDuration('--lease', '25d')).toThrow(/expected `--lease` to be a duration/)
    expect(parseDuration('--lease', '25d', { mostMs: 1e10 })).toBe(25 * 86_400_000)
    expect(parseDuration('--lease', '0s', { minMs: 0 })).toBe(0)
  })

  test('that is too long is refused with the longest that is taken', () => {
    const tenYears = { minMs: 100, mostMs: 3650 * 86_400_000 }
    expect(() => parseDuration('--every', '9999d', tenYears)).toThrow(
      'expected `--every` to be a duration of at most 3650d, got "9999d"',
    )
    expect(() => parseDuration('--for', '25h', { mostMs: 86_400_000 })).toThrow('of at most 24h, got "25h"')
    expect(() => parseDuration('--lease', '25d')).toThrow('of at most 24d, got "25d"')
  })

  test('is of up to ten years where no timer waits for it: as a delay also none, as an age not', () => {
    expect(parseDelay('--delay', '0s')).toBe(0)
    expect(parseDelay('--delay', '3650d')).toBe(3650 * 86_400_000)
    expect(parseAge('--older-than', '30d')).toBe(30 * 86_400_000)
    for (const text of ['-15m', '0s', '10:00', '3651d']) {
      expect(() => parseAge('--older-than', text)).toThrow(/expected `--older-than` to be an age/)
    }
  })
})
