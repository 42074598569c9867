import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { histogramLines } from '../cli/replay/histogram-text.ts'
import { compareIds, idBefore } from '../src/redis/entry-id.ts'
import { HistogramCounter, widthOf } from '../src/replay/histogram.ts'
import { copiedFields, judge } from '../src/replay/judge.ts'
import { newReplayId } from '../src/replay/start.ts'
import { fractionOf, replayOfFields } from '../src/replay/state.ts'
import { compileWhere } from '../src/where.ts'
import { decodeJob } from '../src/wire.ts'

describe('the histogram', () => {
  const time = fc.oneof(fc.nat(4_102_444_800_000), fc.double({ min: 0, max: 1.8e19, noNaN: true }))

  test('has at most 24 spans whatever the times are, and loses none', () => {
    fc.assert(
      fc.property(fc.array(time, { minLength: 1, maxLength: 50 }), (times) => {
        const counter = new HistogramCounter(Math.min(...times), Math.max(...times))
        for (const ms of times) counter.add(ms)
        const { buckets } = counter.histogram
        expect(buckets.length).toBeLessThanOrEqual(24)
        expect(buckets.reduce((sum, { count }) => sum + count, 0)).toBe(times.length)
        for (const columns of [20, 80, 140]) {
          const lines = histogramLines(counter.histogram, columns)
          expect(lines).toHaveLength(buckets.length)
          if (columns >= 80) expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(columns)
        }
      }),
    )
  })

  test('has spans of a round width that begin at multiples of it', () => {
    expect(widthOf(0, 23)).toBe(1)
    expect(widthOf(0, 24)).toBe(2)
    expect(widthOf(0, 3_599_999)).toBe(300_000)
    expect(widthOf(0, 30 * 86_400_000)).toBe(2 * 86_400_000)
    const counter = new HistogramCounter(1_795_000_123_456, 1_795_001_923_456)
    expect(counter.histogram.buckets[0]?.fromMs).toBe(1_795_000_080_000)
    expect(counter.histogram.widthMs).toBe(120_000)
  })

  test('is drawn with bars in proportion, and anything at all shows', () => {
    const buckets = [0, 1, 500, 1000].map((count, at) => ({ fromMs: at * 60_000, count }))
    expect(histogramLines({ widthMs: 60_000, buckets }, 49)).toEqual([
      '  1970-01-01 00:00      0',
      '             00:01      1  ▏',
      '             00:02    500  ██████████▌',
      '             00:03  1,000  █████████████████████',
    ])
  })
})

describe('what is copied', () => {
  const bytes = (...texts: string[]) => texts.map((text) => Buffer.from(text))

  test('is every field but those of the delivery and the publish', () => {
    const kept = bytes('job', 'x', 'ID', '1', 'attempts', '2', 'h-id', '3', 'data', '{}', 'data', '2')
    const dropped = 'id attempt at first-failed past-attempts trace-last replay-of expires unique reply'.split(' ')
    expect(copiedFields([...bytes(...dropped.flatMap((name) => [name, 'v'])), ...kept])).toEqual(kept)
  })

  test.each([
    [['job', 'mail', 'data', '{"n":5}'], 'meant'],
    [['job', 'mail', 'data', '{"n":5}', 'replay-of', '1-1'], 'replay'],
    [['job', 'mail', 'data', '{"n":3}', 'replay-of', '1-1'], 'other'],
    [['job', 'mail', 'data', '{}'], 'unclear'],
    [['job', 'mail', 'data', '{'], 'unclear'],
    [['job', 'other', 'data', '{'], 'other'],
  ])('%j is %s', (fields, kind) => {
    const filter = { job: 'mail', where: compileWhere('data.n > 4') }
    for (const given of [fields, bytes(...fields)]) {
      expect(judge({ id: '9-9', fields: given }, { filter, includeReplays: false }).kind).toBe(kind)
    }
  })
})

describe('the id before another', () => {
  test('is the highest one below it', () => {
    expect(['5-3', '5-0', '0-1', '0-0', '1-18446744073709551615'].map(idBefore)).toEqual([
      '5-2',
      '4-18446744073709551615',
      '0-0',
      '0-0',
      '1-18446744073709551614',
    ])
    const half = fc.bigInt(0n, 2n ** 64n - 1n)
    fc.assert(
      fc.property(half, half, (ms, seq) => {
        fc.pre(ms + seq > 0n)
        expect(compareIds(idBefore(`${ms}-${seq}`), `${ms}-${seq}`)).toBeLessThan(0)
      }),
    )
  })
})

describe('the fields of an entry', () => {
  test.each([
    ['1-2', { stream: undefined, id: '1-2' }],
    ['orders 1-2', { stream: 'orders', id: '1-2' }],
    ['{a}:b 1-2', { stream: '{a}:b', id: '1-2' }],
    ['', undefined],
    [' 1-2', undefined],
    ['orders', undefined],
    ['1-2-3', undefined],
  ])('replay-of %j tells of %j', (text, original) => {
    expect(decodeJob('9-9', ['job', 'x', 'replay-of', text])).toMatchObject({
      kind: 'job',
      earlier: { replayOf: original, spent: 0 },
    })
  })

  test('without one there is nothing to tell', () => {
    expect(decodeJob('9-9', ['job', 'x'])).toMatchObject({ earlier: undefined })
  })
})

describe('the state of a replay', () => {
  const fields = { source: 'orders', group: 'main', fromId: '1000-0', toId: '2000-0', status: 'running' }

  test('is read whatever somebody has written there', () => {
    expect(replayOfFields('r1', 'orders', { ...fields, status: 'x', copied: 'y', limit: '' })).toMatchObject({
      status: 'paused',
      copied: 0,
      limit: null,
    })
  })

  test.each([
    [{ cursor: '1000-0' }, 0],
    [{ cursor: '1500-0' }, 0.5],
    [{ cursor: '999-1' }, 0],
    [{ cursor: '1100-0', limit: '10', copied: '9' }, 0.9],
    [{ cursor: '1100-0', ids: '4', scanned: '1' }, 0.25],
    [{ cursor: '1100-0', status: 'done' }, 1],
  ])('%j is %d of the way', (more, fraction) => {
    expect(fractionOf(replayOfFields('r1', 'orders', { ...fields, ...more }))).toBe(fraction)
  })

  test('goes by ids that are not given twice', () => {
    const ids = Array.from({ length: 1000 }, newReplayId)
    expect(new Set(ids).size).toBe(1000)
    expect(ids.every((id) => /^r[a-z2-7]{8}$/.test(id))).toBe(true)
  })
})
