import { COPY_BATCH, COPY_BYTES, MOST_VALUES, type Copy, type CopyAsked } from '../redis/replays.ts'
import type { BytesEntry } from '../redis/reading.ts'
import { copiedFields, judge } from './judge.ts'
import { countsOf, MOST_REFUSED_IDS, type Replay, type ReplayCounts } from './state.ts'
import type { JobFilter, ScannedJob } from '../scan.ts'

/** Fields that a copy has beyond those of its original, flat. */
const OWN_VALUES = 4
/** What a value takes beside its text on its way: thousands of empty ones are no empty step, and Redis takes a million in a call. */
const VALUE_BYTES = 16

/** What one step of a replay does: the copies that it makes, and how the replay stands behind it. */
export class ReplayBatch {
  readonly copies: Copy[] = []
  /** Nothing is left behind it. */
  isLast = false
  readonly #before: Replay
  readonly #filter: JobFilter
  readonly #most: number
  readonly #counts: ReplayCounts
  #cursor: string
  #bytes = 0

  /** @param most copies of one step, where a rate is to be kept. */
  constructor(before: Replay, { filter, most = COPY_BATCH }: { filter: JobFilter; most?: number | undefined }) {
    this.#before = before
    this.#filter = filter
    this.#most = Math.min(most, COPY_BATCH)
    this.#counts = countsOf(before)
    this.#cursor = before.cursor
  }

  add(entry: BytesEntry): void {
    this.#cursor = entry.id
    this.#counts.scanned += 1
    if (entry.fields.length === 0) {
      this.#counts.missing += 1
      return
    }
    const { includeReplays } = this.#before
    const verdict = judge(entry, { filter: this.#filter, includeReplays })
    if (verdict.kind === 'replay') this.#counts.skippedReplays += 1
    else if (verdict.kind === 'unclear') {
      if (this.#counts.unclear === 0) this.#counts.firstWhy = verdict.why
      this.#counts.unclear += 1
    } else if (verdict.kind === 'meant') this.#copy(verdict.job, entry)
    if (this.#before.copied + this.copies.length >= (this.#before.limit ?? Infinity)) this.isLast = true
  }

  /** Whether it is to be done now: a step has its bounds. */
  get isFull(): boolean {
    return this.isLast || this.copies.length >= this.#most || this.#bytes >= COPY_BYTES
  }

  get isEmpty(): boolean {
    return this.#counts.scanned === this.#before.scanned && !this.isLast
  }

  get asked(): Omit<CopyAsked, 'nowMs'> {
    const counts = Object.entries(this.#counts).map(([name, value]): [string, string] => [name, String(value)])
    return {
      group: this.#before.target.group ?? undefined,
      cursor: this.#before.cursor,
      nextCursor: this.#cursor,
      copies: this.copies,
      fields: { ...Object.fromEntries(counts), ...(this.isLast ? { status: 'done' } : {}) },
    }
  }

  /** The replay as it stands when the step is done. */
  get after(): Replay {
    const { scanned, skippedReplays, unclear, firstWhy, refused, refusedIds, missing } = this.#counts
    return {
      ...this.#before,
      status: this.isLast ? 'done' : 'running',
      cursor: this.#cursor,
      copied: this.#before.copied + this.copies.length,
      scanned,
      skippedReplays,
      unclear: { count: unclear, firstWhy: firstWhy || null },
      refused: { count: refused, firstIds: refusedIds.split(' ').filter(Boolean) },
      missing,
    }
  }

  #copy(job: ScannedJob, entry: BytesEntry): void {
    const fields = copiedFields(entry.fields)
    if (fields.length + OWN_VALUES > MOST_VALUES) {
      if (this.#counts.refused < MOST_REFUSED_IDS) {
        this.#counts.refusedIds = `${this.#counts.refusedIds} ${job.id}`.trim()
      }
      this.#counts.refused += 1
      return
    }
    const { source, target } = this.#before
    this.copies.push({ fields, replayOf: target.stream === source ? job.id : `${source} ${job.id}` })
    for (const field of fields) this.#bytes += field.length + VALUE_BYTES
  }
}
