import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { describe, expect, test } from 'vitest'
import {
  ABANDONED,
  FREE,
  LeaseTable,
  PREFETCHED,
  RETURNED,
  RUNNING,
  UNSETTLED,
  type HeldRow,
} from '../src/lease/table.ts'
import { LOADER } from './helpers/child.ts'
import { onEnd } from './helpers/cleanup.ts'
import { waitFor } from './helpers/eventually.ts'

const ANY = [PREFETCHED, RUNNING, UNSETTLED, ABANDONED, RETURNED]

/** What another view of the same memory reads. */
const readBy = (table: LeaseTable, states: readonly number[] = ANY): HeldRow[] =>
  new LeaseTable(table.shared).held(states)

describe('a row', () => {
  test.each([
    '0-0',
    '0-1',
    '1700000000000-0',
    '4294967295-4294967296',
    '9007199254740991-9007199254740992',
    '9007199254740993-2147483648',
    '9223372036854775807-9223372036854775808',
    '18446744073709551615-0',
    '0-18446744073709551615',
    '18446744073709551615-18446744073709551615',
  ])('holds the id %s as it is', (id) => {
    const table = new LeaseTable(1)
    table.fill(0, id, 1, false)

    expect(readBy(table).map((row) => row.id)).toEqual([id])
  })

  test('holds what it was filled with', () => {
    const table = new LeaseTable(3)
    table.fill(0, '1-1', 7, true)
    table.fill(1, '2-2', 1, false)

    expect(readBy(table)).toMatchObject([
      { id: '1-1', source: 0, deliveries: 7, claimed: true, state: PREFETCHED },
      { id: '2-2', source: 1, deliveries: 1, claimed: false, state: PREFETCHED },
    ])
  })

  test('is found by its states only, on its way through them', () => {
    const table = new LeaseTable(1)
    const slot = table.fill(0, '1-1', 1, false)
    const seen = [table.state(slot)]
    table.start(slot, 1, Infinity)
    for (const state of [UNSETTLED, ABANDONED] as const) {
      seen.push(table.state(slot))
      table.mark(slot, state)
    }
    seen.push(table.state(slot))
    expect(readBy(table, [RUNNING, UNSETTLED])).toEqual([])
    table.release(slot)

    expect([...seen, table.state(slot)]).toEqual([PREFETCHED, RUNNING, UNSETTLED, ABANDONED, FREE])
    expect(readBy(table)).toEqual([])
  })

  test('is there for as many as there are slots, and again when one is free', () => {
    const table = new LeaseTable(2)
    const slots = [table.fill(0, '1-1', 1, false), table.fill(0, '2-2', 1, false)]
    expect([table.fill(0, '3-3', 1, false), table.freeSlots]).toEqual([-1, 0])
    table.release(slots[0] ?? -1)

    expect(table.fill(0, '3-3', 1, false)).toBe(slots[0])
    expect(readBy(table).map(({ id }) => id)).toEqual(['3-3', '2-2'])
  })

  test('forgets the deadline of the job before', () => {
    const table = new LeaseTable(1)
    const slot = table.fill(0, '1-1', 1, false)
    table.start(slot, 1, 5000)
    expect([table.isOverdue(slot, 4000), table.isOverdue(slot, 60_000)]).toEqual([false, true])
    table.release(slot)
    table.fill(0, '2-2', 1, false)

    expect(table.isOverdue(slot, 60_000)).toBe(false)
    table.start(slot, 1, Infinity)
    expect(table.isOverdue(slot, 60_000_000)).toBe(false)
  })
})

describe('start and give back', () => {
  test('of one row: the first wins, whichever it is', () => {
    const table = new LeaseTable(2)
    const [started, given] = [table.fill(0, '1-1', 1, false), table.fill(0, '2-2', 1, false)]
    const keeper = new LeaseTable(table.shared)

    expect([table.start(started, 1, Infinity), keeper.giveBack(started)]).toEqual([true, false])
    expect([keeper.giveBack(given), table.start(given, 1, Infinity)]).toEqual([true, false])
    expect([table.state(started), table.state(given)]).toEqual([RUNNING, RETURNED])
  })

  test('of one row whose delivery was counted after the keeper had read it: it is given back with that count', () => {
    const table = new LeaseTable(1)
    const slot = table.fill(1, '1-1', 1, true)
    const keeper = new LeaseTable(table.shared)
    const [read] = keeper.held([PREFETCHED]) as [HeldRow]

    expect([table.count(slot, 2), table.state(slot), keeper.giveBack(slot)]).toEqual([true, PREFETCHED, true])
    expect(keeper.returned(read)).toMatchObject({ id: '1-1', source: 1, deliveries: 2, claimed: false })
    expect(table.count(slot, 3)).toBe(false)
    expect(readBy(table)).toMatchObject([{ state: RETURNED, deliveries: 2, claimed: false }])
    // What has the slot next is not what was given back, be it the same job again.
    for (const id of ['2-2', '1-1']) {
      table.release(slot)
      table.fill(1, id, 5, true)
      expect(keeper.returned(read)).toEqual(read)
    }
  })

  test('from two threads: exactly one wins, thousands of times', async () => {
    const table = new LeaseTable(3000)
    for (let slot = 0; slot < table.slots; slot++) table.fill(0, `${slot}-0`, 1, false)
    const flag = newFlag()
    const keeper = startThread('lease-giver.ts', { shared: table.shared, flag })
    await keeper.ready()
    const started: number[] = []
    for (let slot = 0; slot < table.slots; slot++) {
      Atomics.store(flag, 0, slot + 2)
      // Now and then the other thread has the first move, or each would always meet the other at the same point.
      if (slot % 2 === 0) while (Atomics.load(flag, 1) < slot + 2);
      if (table.start(slot, 1, Infinity)) started.push(slot)
    }
    const given = await keeper.told<number[]>()

    const winners = [...given, ...started].sort((a, b) => a - b)
    expect(winners).toEqual(Array.from({ length: table.slots }, (_, slot) => slot))
  })
})

describe('a report about a row', () => {
  test('misses the next job of its slot: the generation is another', () => {
    const table = new LeaseTable(1)
    const slot = table.fill(0, '1-1', 1, false)
    const [before] = readBy(table)
    table.release(slot)
    table.fill(0, '1-1', 1, false)

    expect(before?.generation).not.toBe(table.generation(slot))
    expect(readBy(table)[0]?.generation).toBe(table.generation(slot))
  })

  test('hits its own job through every state', () => {
    const table = new LeaseTable(1)
    const slot = table.fill(0, '1-1', 1, false)
    const [before] = readBy(table)
    table.start(slot, 1, Infinity)
    table.mark(slot, UNSETTLED)

    expect(table.generation(slot)).toBe(before?.generation)
  })
})

describe('a second thread', () => {
  interface Seen {
    reads: number
    rows: number
    mixed: string[]
    early: string[]
  }

  /** For a moment that differs from turn to turn, so that the reader meets the writer at every point of its way. */
  function linger(table: LeaseTable, turns: number): void {
    for (let turn = 0; turn < turns; turn++) table.state(0)
  }

  /** Refills a slot with ids whose halves are the same, and whose source says whether they are odd. */
  async function watched(values: readonly bigint[], refills: number): Promise<Seen> {
    const table = new LeaseTable(1)
    const reader = startThread('lease-reader.ts', { shared: table.shared, flag: newFlag() })
    await reader.ready()
    const jobs = values.map((value) => ({
      source: value % 2n === 0n ? (0 as const) : (1 as const),
      id: `${value}-${value}`,
    }))
    for (let n = 0; n < refills; n++) {
      const { source, id } = jobs[n % jobs.length] ?? { source: 0, id: '' }
      const slot = table.fill(source, id, 1, true)
      linger(table, n % (n % 2 === 0 ? 61 : 251))
      table.start(slot, 2, Infinity)
      linger(table, n % 7)
      table.release(slot)
    }
    reader.release()
    return reader.told<Seen>()
  }

  test('never reads an id that is made of two, nor one with the source of another', async () => {
    const values = [0n, 2n ** 64n - 1n, 2n ** 32n, 2n ** 32n - 1n, 1_700_000_000_001n, 2n ** 63n]
    const seen = await watched(values, 1_500_000)

    expect(seen.mixed).toEqual([])
    expect(seen.rows).toBeGreaterThan(1000)
  })

  test('never reads a running job with the delivery count of before its start', async () => {
    const seen = await watched([1_700_000_000_001n], 3_000_000)

    expect(seen.early).toEqual([])
    expect(seen.rows).toBeGreaterThan(1000)
  })
})

test('what one thread tells of the worker the other reads', () => {
  const table = new LeaseTable(1)
  const keeper = new LeaseTable(table.shared)
  table.tick()
  table.report({ running: 3, completed: 2 ** 32 - 1, claimRoom: 5 })

  expect(keeper.ticks).toBe(1)
  expect(keeper.reported).toEqual({ running: 3, completed: 2 ** 32 - 1, claimRoom: 5 })
})

function newFlag(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(8))
}

/** A thread that raises its flag to 1 when it is up, and goes on when the flag is raised further. */
function startThread(fixture: string, data: { shared: SharedArrayBuffer; flag: Int32Array }) {
  const thread = new Worker(new URL(`./fixtures/${fixture}`, import.meta.url), {
    workerData: data,
    execArgv: ['--import', LOADER],
  })
  onEnd(async () => void (await thread.terminate()))
  const message = once(thread, 'message')
  return {
    ready: () => waitFor(() => Atomics.load(data.flag, 0) === 1, { what: 'the thread is up' }),
    release: () => void Atomics.store(data.flag, 0, 2),
    told: async <Told>(): Promise<Told> => ((await message) as [Told])[0],
  }
}
