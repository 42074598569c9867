import { describe, expect, test } from 'vitest'
import { decide, provenanceOf, type Ended, type Run } from '../src/decide.ts'

const failed: Run = { kind: 'failed', error: new Error('no such order') }
const malformed: Run = {
  kind: 'unrun',
  outcome: { kind: 'dead', reason: 'malformed', error: new Error('its data is not JSON') },
}

const NOW = { nowMs: 1000, chance: 0 }
const attempt = { id: '1-2', name: 'a', attempt: 1, publishedMs: 0, firstFailedMs: 1000 }
const delivered = { ended: undefined, attempt, retry: { attempts: 3 } }

/** What becomes of a run, as one word or as `dead:<reason>`. */
function fate(run: Run, ended?: Ended): string {
  const outcome = decide(run, { ...delivered, ended }, NOW)
  return outcome.kind === 'dead' ? `dead:${outcome.reason}` : outcome.kind
}

describe('decide', () => {
  test('a completed run is completed', () => {
    expect(fate({ kind: 'completed' })).toBe('completed')
  })

  test.each<Ended>(['lost', 'timed-out', 'stopping', 'cancelled'])(
    'a completion counts also when its run was %s: the work is done',
    (ended) => {
      expect(fate({ kind: 'completed' }, ended)).toBe('completed')
    },
  )

  test('a failed run is tried again until its attempts are used up', () => {
    const outcomes = [1, 2, 3, 4].map((failures) =>
      decide(failed, { ...delivered, attempt: { ...attempt, attempt: failures } }, NOW),
    )
    expect(outcomes.map(({ kind }) => kind)).toEqual(['retry', 'retry', 'dead', 'dead'])
    expect(outcomes.at(-1)).toMatchObject({ reason: 'attempts', error: new Error('no such order') })
  })

  test('a failure of a run whose lease was lost settles nothing: the delivery is not ours', () => {
    expect(fate(failed, 'lost')).toBe('left')
  })

  test('a failure after the timeout is a failed attempt', () => {
    expect(fate(failed, 'timed-out')).toBe('retry')
  })

  test('a cancelled job that fails, or was not begun, is not tried again', () => {
    expect([fate(failed, 'cancelled'), fate({ kind: 'cancelled' })]).toEqual(['cancelled', 'cancelled'])
  })

  test('a failure of a run that its worker cut short costs nothing: the job is handed back', () => {
    expect(fate(failed, 'stopping')).toBe('handed-back')
  })

  test('what was not run becomes what was found before', () => {
    expect(fate(malformed)).toBe('dead:malformed')
    const wait = { kind: 'wait', delayMs: 5, why: 'x' } as const
    expect(decide({ kind: 'unrun', outcome: wait }, delivered, NOW)).toBe(wait)
  })

  test('a dead job keeps the error of its last run', () => {
    const spent = { ...delivered, attempt: { ...attempt, attempt: 3 } }
    expect(decide(failed, spent, NOW)).toMatchObject({ error: new Error('no such order') })
    expect(decide(malformed, delivered, NOW)).toMatchObject({ error: new Error('its data is not JSON') })
  })
})

describe('provenance', () => {
  const delivery = {
    id: '7-8',
    entryId: '1-2',
    source: 0,
    attempt: 2,
    past: 5,
    deliveries: 3,
    firstFailedMs: 77,
  } as const
  const of = (error: unknown, of = delivery): Map<string, string> => {
    const flat = provenanceOf({ reason: 'deliveries', error }, of, 'host:1:a')
    const pairs = flat.flatMap((name, at): [string, string][] => (at % 2 === 0 ? [[name, flat[at + 1] ?? '']] : []))
    return new Map(pairs)
  }

  test('names where the job came from and what became of it, in a fixed order', () => {
    expect([...of(new RangeError('too far'))].slice(0, -2)).toEqual([
      ['dead-reason', 'deliveries'],
      ['dead-id', '7-8'],
      ['dead-origin', '1-2'],
      ['dead-source', 'stream'],
      ['dead-attempts', '1'],
      ['dead-total-attempts', '6'],
      ['dead-deliveries', '3'],
      ['dead-worker', 'host:1:a'],
      ['dead-error', 'RangeError'],
      ['dead-message', 'too far'],
    ])
    expect([...of(new RangeError('too far'))].at(-1)).toEqual(['dead-first-failed', '77'])
  })

  test('counts the attempts that failed: the last run too, unless it took its worker down', () => {
    const attempts = (reason: 'attempts' | 'fatal' | 'deliveries' | 'malformed') => {
      const flat = provenanceOf({ reason, error: 'no' }, delivery, 'w')
      return ['dead-attempts', 'dead-total-attempts'].map((name) => flat[flat.indexOf(name) + 1])
    }
    expect([attempts('attempts'), attempts('fatal')]).toEqual(new Array(2).fill(['2', '7']))
    expect([attempts('deliveries'), attempts('malformed')]).toEqual(new Array(2).fill(['1', '6']))
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
