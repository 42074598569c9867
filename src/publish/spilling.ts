import { monotonicMs } from '../clock.ts'
import { messageOf, SpillError } from '../errors.ts'
import type { Leftover } from './leftovers.ts'
import type { Outgoing } from './outgoing.ts'
import type { SpilledItem, SpilledJob } from './spill-format.ts'
import { writeSpill } from './spill-writing.ts'

/** What became of the jobs that a closing producer wrote to its spill file. */
export interface Spilling {
  /** How many there are in it. */
  readonly spilled: number
  readonly spillFile?: string
  /** Why there are none, though there should be. */
  readonly spillError?: SpillError
}

/**
 * Writes what is left of buffered jobs to the spill file. Awaited ones have a caller who is told and who may publish them
 * again; of these only those go with it whose batch was on its way, since a batch keeps its identity only as a whole.
 */
export async function spillLeft(path: string | undefined, left: readonly Leftover[]): Promise<Spilling> {
  if (path === undefined) return { spilled: 0 }
  // The clocks are read once: a job keeps its age, not its place on a clock that ends with the process.
  const epochMs = Date.now() - monotonicMs()
  const batches = left.flatMap(({ batcher, batch }) => {
    if (batch === undefined) return []
    const { stream } = batcher.numbers
    return [{ ...batch, stream, items: batch.items.map((item) => spilledItem(item, epochMs)) }]
  })
  const jobs = left.flatMap(({ batcher, waiting }) =>
    waiting.filter(isOwed).map((item): SpilledJob => {
      return { ...spilledItem(item, epochMs), stream: batcher.numbers.stream, ref: item.ref ?? '' }
    }),
  )
  try {
    const written = await writeSpill(path, { batches, jobs })
    return written === undefined ? { spilled: 0 } : { spilled: written.jobs, spillFile: written.file }
  } catch (error) {
    const spillError = error instanceof SpillError ? error : new SpillError(messageOf(error), { cause: error })
    return { spilled: 0, spillError }
  }
}

/** Whether its publish has resolved, and nobody was told yet that it failed. One at the door has not resolved. */
export function isOwed({ ref, settled, isAtDoor }: Outgoing): boolean {
  return ref !== undefined && settled !== undefined && !isAtDoor
}

function spilledItem(item: Outgoing, epochMs: number): SpilledItem {
  const { fields, due, token, unique, priority, publishedAtMs } = item
  const ref = isOwed(item) ? item.ref : undefined
  return { fields, due, token, unique, ref, priority, publishedAt: Math.round(epochMs + publishedAtMs) }
}
