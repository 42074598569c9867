import { describe, expect, test } from 'vitest'
import { decide, provenanceOf, type Ended, type Outcome, type Run } from '../src/decide.ts'

const failed: Run = { kind: 'failed', error: new Error('no such order') }
const malformed: Run = { kind: 'malformed', malformed: { kind: 'malformed', why: 'its data is not JSON' } }

/** What becomes of a run, as one word or as `dead:<reason>`. */
function fate(run: Run, deliveries: number, ended?: Ended): string {
  const outcome: Outcome = decide(run, { deliveries, maxDeliveries: 3, ended })
  return outcome.kind === 'dead' ? `dead:${outcome.reason}` : outcome.kind
}

describe('decide', () => {
  test.each([1, 3, 4])('a completed run is completed, whatever its deliveries: %i', (deliveries) => {
    expect(fate({ kind: 'completed' }, deliveries)).toBe('completed')
  })

  test.each<Ended>(['lost', 'timed-out', 'stopping'])(
    'a completion counts also when its run was %s: the work is done',
    (ended) => {
      expect(fate({ kind: 'completed' }, 1, ended)).toBe('completed')
    },
  )

  test('a failed run is left for another delivery until its deliveries are used up', () => {
    expect([1, 2, 3, 4].map((deliveries) => fate(failed, deliveries))).toEqual([
      'left',
      'left',
      'dead:deliveries',
      'dead:deliveries',
    ])
  })

  test.each<Ended>(['lost', 'timed-out'])(
    'a failure of a run that was %s settles nothing: the delivery is not ours',
    (ended) => {
      expect(fate(failed, 3, ended)).toBe('left')
    },
  )

  test('a failure of a run that its worker cut short costs nothing: the job is handed back', () => {
    expect([1, 3].map((deliveries) => fate(failed, deliveries, 'stopping'))).toEqual(['handed-back', 'handed-back'])
  })

  test('a malformed entry is dead at its first delivery', () => {
    expect(fate(malformed, 1)).toBe('dead:malformed')
  })

  test('a job that this worker does not know is left to others until its deliveries are used up', () => {
    expect([1, 2, 3].map((deliveries) => fate({ kind: 'unknown-job' }, deliveries))).toEqual([
      'left',
      'left',
      'dead:unknown-job',
    ])
  })

  test('a dead job keeps the error of its last run', () => {
    const outcome = decide(failed, { deliveries: 3, maxDeliveries: 3, ended: undefined })
    expect(outcome).toMatchObject({ error: new Error('no such order') })
    expect(decide(malformed, { deliveries: 1, maxDeliveries: 3, ended: undefined })).toMatchObject({
      error: new Error('its data is not JSON'),
    })
  })
})

describe('provenance', () => {
  const delivery = { id: '7-8', entryId: '1-2', source: 0, attempt: 2, deliveries: 3 } as const
  const of = (error: unknown, of = delivery): Map<string, string> => {
    const flat = provenanceOf({ reason: 'deliveries', error }, of, 'host:1:a')
    const pairs = flat.flatMap((name, at): [string, string][] => (at % 2 === 0 ? [[name, flat[at + 1] ?? '']] : []))
    return new Map(pairs)
  }

  test('names where the job came from and what became of it, in a fixed order', () => {
    expect([...of(new RangeError('too far'))].slice(0, -1)).toEqual([
      ['dead-reason', 'deliveries'],
      ['dead-id', '7-8'],
      ['dead-origin', '1-2'],
      ['dead-source', 'stream'],
      ['dead-attempts', '2'],
      ['dead-deliveries', '3'],
      ['dead-worker', 'host:1:a'],
      ['dead-error', 'RangeError'],
      ['dead-message', 'too far'],
    ])
  })

  test('tells a redelivered entry from one of the stream', () => {
    const flat = provenanceOf({ reason: 'attempts', error: 'no' }, { ...delivery, source: 1 }, 'host:1:a')
    expect(flat[flat.indexOf('dead-source') + 1]).toBe('redelivery')
  })

  test.each([
    ['a string', 'broken', 'broken'],
    ['nothing', undefined, 'undefined'],
    ['a number', 5, '5'],
    ['an object', { code: 5 }, '[object Object]'],
  ])('has a message for a thrown value that is no error: %s', (_what, thrown, message) => {
    expect(of(thrown).get('dead-message')).toBe(message)
  })

  test('has a message for a thrown value that cannot be made a text', () => {
    expect(of(Object.create(null)).get('dead-message')).toBeTypeOf('string')
    expect(of(Symbol('x')).get('dead-message')).toBe('Symbol(x)')
  })

  test('has only texts, whatever a hostile error says of itself', () => {
    const error = Object.assign(new Error('x'), { message: 5, name: undefined, stack: {} })
    for (const field of provenanceOf({ reason: 'fatal', error }, delivery, 'w')) expect(field).toBeTypeOf('string')
  })

  test('is bounded, however long the error is', () => {
    const error = Object.assign(new Error('m'.repeat(10_000)), { name: 'n'.repeat(10_000), stack: 's'.repeat(100_000) })
    const told = of(error)
    expect(told.get('dead-message')).toBe(`${'m'.repeat(999)}…`)
    expect(['dead-error', 'dead-stack'].map((name) => told.get(name)?.length)).toEqual([100, 4000])
  })
})
