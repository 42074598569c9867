import type { Logger } from '../logger.ts'
import { append, isRefused, takeOver, type Item } from '../redis/publishing.ts'
import type { SpillAsking } from './spill-asking.ts'
import type { PlannedBatch, SpillBook } from './spill-book.ts'
import { lineOf } from './spill-format.ts'

/** A number that no batch has: asked for it, Redis says which one it is at. */
const NO_SEQ = Number.MAX_SAFE_INTEGER

/** Numbers from here on are of somebody who took the sequence over. */
const TAKEN_OVER_SEQ = 2 ** 32

/** What publishing a spill file takes. */
export interface Publishing {
  readonly book: SpillBook
  readonly asking: SpillAsking
  readonly logger: Logger
  /** Names this recovery; eight characters. */
  readonly owner: string
  /** Whether jobs are to wait though there is room for them: Redis's memory is nearly full. */
  readonly isHeld: () => boolean
}

/** `taken`: another process is at it. */
export type Ending = 'done' | 'taken'

/**
 * Settles a batch that was on its way when its producer was closed. It is sent under its own number first: if it was
 * executed, Redis answers what became of it, and a copy that is still on its way somewhere changes nothing.
 */
export async function settleBatch(publishing: Publishing, planned: PlannedBatch): Promise<Ending> {
  if (planned.state !== 'todo') return 'done'
  const { book, logger } = publishing
  const { offset, itemsOffset, batch } = planned
  const [items, offsets]: [Item[], number[]] = [[], []]
  for await (const raw of book.jobLines(itemsOffset, batch.items)) {
    const line = lineOf(raw.bytes)
    if (line.kind !== 'job') continue
    items.push(line.item)
    offsets.push(raw.offset)
  }
  const ids = await sendBatch(publishing, planned, items)
  if (ids === 'taken') return 'taken'
  if (ids === 'unknown') {
    // Another process may have had the answer, and Redis have forgotten it since.
    if ((await book.stateAt(offset)) !== 'todo') return 'done'
    await book.writeStates([offset], 'unknown')
    logger.warn({ stream: batch.stream, jobs: items.length }, 'Redis no longer knows whether it has a spilled batch')
    return 'done'
  }
  const refused = offsets.filter((_, at) => at < ids.length && isRefused(ids[at]))
  await book.writeStates(refused, 'refused')
  // Of a batch that was cut in the file, the rest is in Redis only if the batch was executed before.
  const isWhole = items.length === batch.items || ids.length === batch.items
  await book.writeStates([offset], isWhole ? 'done' : 'begun')
  return 'done'
}

async function sendBatch(
  publishing: Publishing,
  planned: PlannedBatch,
  items: readonly Item[],
): Promise<readonly (string | undefined)[] | 'taken' | 'unknown'> {
  const { book, asking } = publishing
  const { offset, batch } = planned
  const { stream, producerId, seq } = batch
  const { client } = asking.connection
  // Where it was executed by a recovery, also under another number, this says so.
  const mark = `${book.id}@${offset}`
  const first = await asking.ask(() => append(client, stream, { producerId, seq, items, mark }))
  if (first.answer.kind === 'done') return first.answer.ids
  if (first.answer.kind === 'forgotten') return 'unknown'
  const seen = await asking.ask(() => append(client, stream, { producerId, seq: NO_SEQ, items: [] }))
  if (seen.answer.kind !== 'behind') return 'unknown'
  // Its producer went on behind it, and does that only when it has the answer.
  if (seen.answer.stored >= seq && seen.answer.stored < TAKEN_OVER_SEQ) return []
  // The last batch of a recovery that was here before; whether that is this one, its mark says.
  const told = await tellAgain(publishing, planned, { stored: seen.answer.stored, items, mark })
  // Redis has lost batches, this one too, or a recovery was here before: copies under the old numbers must come too late.
  const { answer: taken } = await asking.ask(() => takeOver(client, stream, { producerId, isNew: false }))
  if (taken === undefined) return 'unknown'
  if (taken.mark === mark) return told
  const again = await asking.ask(() => append(client, stream, { producerId, seq: taken.seq + 1, items, mark }))
  if (again.answer.kind === 'done') return again.answer.ids
  // Redis has lost the take-over too.
  if (again.answer.kind === 'behind') return sendBatch(publishing, planned, items)
  return again.answer.kind === 'stale' ? 'taken' : 'unknown'
}

/** What became of the batch under the number that Redis is at, as long as no take-over has had it forget that. */
async function tellAgain(
  { asking }: Publishing,
  { batch: { stream, producerId } }: PlannedBatch,
  { stored, items, mark }: { stored: number; items: readonly Item[]; mark: string },
): Promise<readonly (string | undefined)[]> {
  if (stored < TAKEN_OVER_SEQ) return []
  const { answer } = await asking.ask(() =>
    append(asking.connection.client, stream, { producerId, seq: stored, items, mark }),
  )
  return answer.kind === 'done' ? answer.ids : []
}
