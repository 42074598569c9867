import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Line } from '../src/publish/line.ts'
import type { Outgoing } from '../src/publish/outgoing.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

interface Given {
  bytes?: number
  priority?: number
  deadlineMs?: number
}

function item({ bytes = 1, priority = 5, deadlineMs = Infinity }: Given = {}): Outgoing {
  return { fields: [], bytes, priority, deadlineMs, settled: () => {} } as unknown as Outgoing
}

/** Settles it where it stands. */
function drop(line: Line, dropped: Outgoing): void {
  dropped.settled = undefined
  line.dropped(dropped)
}

/** How many of the jobs that were given are still in memory. */
async function kept(refs: readonly WeakRef<Outgoing>[]): Promise<number> {
  await new Promise((resolve) => setImmediate(resolve))
  collectGarbage()
  return refs.filter((ref) => ref.deref() !== undefined).length
}

describe('a line keeps no memory', () => {
  test('of jobs that were taken from it while others came', async () => {
    const line = new Line()
    const refs: WeakRef<Outgoing>[] = []
    line.push(item())
    for (let n = 0; n < 1000; n++) {
      const large = item({ bytes: 1024 * 1024 })
      refs.push(new WeakRef(large))
      line.push(large)
      line.take(1, Infinity)
    }

    expect(await kept(refs)).toBeLessThan(10)
    expect(line.jobs).toBe(1)
  })

  test('of large jobs that were given up in front of many small ones', async () => {
    const line = new Line()
    for (let n = 0; n < 5000; n++) line.push(item())
    const refs: WeakRef<Outgoing>[] = []
    for (let n = 0; n < 500; n++) {
      const large = item({ bytes: 1024 * 1024 })
      refs.push(new WeakRef(large))
      line.push(large)
      drop(line, large)
    }

    expect(await kept(refs)).toBeLessThan(20)
    expect(line.jobs).toBe(5000)
  })

  test('of jobs that were given up after somebody asked who is to give way', async () => {
    const line = new Line()
    for (let n = 0; n < 100; n++) line.push(item())
    const refs: WeakRef<Outgoing>[] = []
    for (let n = 0; n < 2000; n++) {
      line.weakest(5)
      const next = item()
      refs.push(new WeakRef(next))
      line.push(next)
      drop(line, next)
    }

    expect(await kept(refs)).toBeLessThan(300)
  })
})

test('a line counts, orders and gives up what is in it as a plain list does, whatever is done with it', () => {
  const given = fc.record({
    bytes: fc.integer({ min: 1, max: 9 }),
    priority: fc.integer({ min: 0, max: 9 }),
    deadlineMs: fc.integer({ min: 0, max: 20 }),
  })
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('push' as const), given }) },
    fc.record({ kind: fc.constant('take' as const), most: fc.integer({ min: 1, max: 5 }), back: fc.boolean() }),
    fc.record({ kind: fc.constant('drop' as const), at: fc.nat() }),
    fc.record({ kind: fc.constant('late' as const), nowMs: fc.integer({ min: 0, max: 20 }) }),
    fc.record({
      kind: fc.constant('weakest' as const),
      priority: fc.integer({ min: 0, max: 9 }),
      isShed: fc.boolean(),
    }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const line = new Line()
      let model: Outgoing[] = []
      const dropped = (gone: Outgoing) => {
        drop(line, gone)
        model = model.filter((one) => one !== gone)
      }
      for (const one of steps) {
        if (one.kind === 'push') {
          const next = item(one.given)
          line.push(next)
          model.push(next)
        } else if (one.kind === 'take') {
          const taken = line.take(one.most, Infinity)
          expect(taken).toEqual(model.slice(0, one.most))
          const first = taken[0]
          if (one.back && first !== undefined) first.settled = undefined
          model = model.slice(taken.length)
          if (one.back) line.putBack(taken)
          if (one.back) model = [...taken.slice(1), ...model]
        } else if (one.kind === 'drop') {
          const gone = model[one.at % (model.length || 1)]
          if (gone !== undefined) dropped(gone)
        } else if (one.kind === 'late') {
          const late = line.late(one.nowMs)
          expect(late).toEqual(model.filter(({ deadlineMs }) => deadlineMs <= one.nowMs))
          late.forEach(dropped)
        } else {
          const lower = model.filter(({ priority }) => priority < one.priority)
          const lowest = Math.min(...lower.map(({ priority }) => priority))
          const weakest = line.weakest(one.priority)
          expect(weakest).toBe(lower.findLast(({ priority }) => priority === lowest))
          if (weakest !== undefined && one.isShed) dropped(weakest)
          else if (weakest !== undefined) line.spare([weakest])
        }
        expect([...line]).toEqual(model)
        expect(line.first).toBe(model[0])
        expect([line.jobs, line.bytes]).toEqual([model.length, model.reduce((sum, { bytes }) => sum + bytes, 0)])
      }
    }),
    { numRuns: 200 },
  )
})
