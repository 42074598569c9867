import { readEntries } from '../redis/reading.ts'
import { timeOf } from '../redis/entry-id.ts'
import type { Asked } from './asked.ts'
import { HistogramCounter, type Histogram } from './histogram.ts'
import { judge } from './judge.ts'
import { checkPlaces, meantBy, type Meant } from './meant.ts'
import { IDS_PAGE, listedPages } from './pages.ts'
import type { ReplayTarget } from './state.ts'
import { scanPages, type Ask, type ScannedJob, type ScanPage } from '../scan.ts'

/** A job that would be replayed. */
export interface ReplaySample {
  readonly id: string
  readonly job: string | null
  readonly publishedMs: number
  /** The payload's text, its first 200 characters; null if there is none. */
  readonly payload: string | null
}

/** What would be replayed. Nothing was changed. */
export interface ReplayPlan {
  readonly executed: false
  readonly stream: string
  readonly target: ReplayTarget
  /** The first and the last entry of what is meant; null if there is none. What comes later is not meant. */
  readonly fromId: string | null
  readonly toId: string | null
  /** Entries that were looked at. */
  readonly scanned: number
  readonly matches: number
  /** The most frequent first. */
  readonly byJob: readonly { readonly job: string | null; readonly count: number }[]
  /** When the matches were published; null without any entry. */
  readonly histogram: Histogram | null
  /** The first three. */
  readonly samples: readonly ReplaySample[]
  /** Entries that are left because they are copies of a replay themselves. */
  readonly skippedReplays: number
  /** Jobs of which the filter cannot tell, which counts as no, and why it cannot of the first. */
  readonly unclear: { readonly count: number; readonly firstWhy: string | null }
  /** Ids of jobs that the stream does not hold. */
  readonly unknownIds: readonly string[]
  /** What the matches take as they are, in bytes. */
  readonly bytes: number
  /** About how long it will take. */
  readonly seconds: number
  /** The signal aborted before everything was looked at. */
  readonly interrupted: boolean
}

const SAMPLES = 3
const SAMPLE_CHARACTERS = 200
const MOST_NAMES = 10_000
/** Measured on two cores with jobs of 100 bytes, Redis beside it: 49 000 copies and 140 000 others. Larger ones take longer. */
const READ_PER_SECOND = 120_000
const COPIED_PER_SECOND = 40_000

export async function planReplay(ask: Ask, asked: Asked): Promise<ReplayPlan> {
  await ask((client) => checkPlaces(client, asked))
  const meant = await meantBy(ask, asked)
  const { ends } = meant
  const counter = new PlanCounter(asked, ends)
  if (ends !== undefined) {
    for await (const { entries } of pagesOf(ask, asked, { ...meant, ends })) {
      for (const entry of entries) {
        if (counter.isFull) break
        counter.add(entry)
      }
      const last = entries[entries.length - 1]?.id ?? ends.fromId
      asked.onProgress?.(counter.progress(last, meant.entryIds?.length))
      if (counter.isFull) break
    }
  }
  return counter.plan(meant.unknownIds)
}

type AnyEntry = { readonly id: string; readonly fields: readonly (string | Buffer)[] }

/** As text where nothing is written again: half the work. */
function pagesOf(
  ask: Ask,
  { source, signal }: Asked,
  { ends, entryIds }: Meant & { ends: { fromId: string; toId: string } },
): AsyncGenerator<ScanPage<AnyEntry>> {
  if (entryIds === undefined) {
    const range = { low: ends.fromId, high: ends.toId, signal }
    return scanPages<AnyEntry>(ask, range, (client, page) => readEntries(client, source, page))
  }
  const part = (_client: unknown, from: number) => Promise.resolve(entryIds.slice(from, from + IDS_PAGE))
  return listedPages(ask, source, { part, signal })
}

class PlanCounter {
  readonly #asked: Asked
  readonly #ends: { fromId: string; toId: string } | undefined
  readonly #times: HistogramCounter | undefined
  readonly #jobs = new Map<string | null, number>()
  readonly #samples: ReplaySample[] = []
  #scanned = 0
  #matches = 0
  #replays = 0
  #unclear = 0
  #firstWhy: string | null = null
  #bytes = 0

  constructor(asked: Asked, ends: { fromId: string; toId: string } | undefined) {
    this.#asked = asked
    this.#ends = ends
    this.#times = ends && new HistogramCounter(timeOf(ends.fromId), timeOf(ends.toId))
  }

  get isFull(): boolean {
    return this.#matches >= (this.#asked.limit ?? Infinity)
  }

  add(entry: AnyEntry): void {
    this.#scanned += 1
    if (entry.fields.length === 0) return
    const verdict = judge(entry, this.#asked)
    if (verdict.kind === 'replay') this.#replays += 1
    else if (verdict.kind === 'unclear') {
      this.#unclear += 1
      this.#firstWhy ??= verdict.why
    } else if (verdict.kind === 'meant') this.#take(verdict.job, entry)
  }

  #take(job: ScannedJob, { id, fields }: AnyEntry): void {
    this.#matches += 1
    this.#times?.add(timeOf(id))
    for (const field of fields) this.#bytes += Buffer.byteLength(field)
    // Names come from entries, which anybody may have written: those beyond a bound are counted together.
    const name = this.#jobs.has(job.job) || this.#jobs.size < MOST_NAMES ? job.job : null
    this.#jobs.set(name, (this.#jobs.get(name) ?? 0) + 1)
    if (this.#samples.length >= SAMPLES) return
    const payload = job.json?.slice(0, SAMPLE_CHARACTERS) ?? null
    this.#samples.push({ id: job.id, job: job.job, publishedMs: timeOf(job.id), payload })
  }

  progress(lastId: string, ids: number | undefined) {
    const { fromId, toId } = this.#ends ?? { fromId: lastId, toId: lastId }
    const [first, last] = [timeOf(fromId), timeOf(toId)]
    const byTime = last > first ? (timeOf(lastId) - first) / (last - first) : 1
    const fraction = ids === undefined ? byTime : this.#scanned / ids
    return { id: '', copied: this.#matches, scanned: this.#scanned, fraction }
  }

  plan(unknownIds: readonly string[]): ReplayPlan {
    const { source, target, perSecond = Infinity, signal } = this.#asked
    const others = this.#scanned - this.#matches
    return {
      executed: false,
      stream: source,
      target,
      fromId: this.#ends?.fromId ?? null,
      toId: this.#ends?.toId ?? null,
      scanned: this.#scanned,
      matches: this.#matches,
      byJob: [...this.#jobs].sort((a, b) => b[1] - a[1]).map(([job, count]) => ({ job, count })),
      histogram: this.#times?.histogram ?? null,
      samples: this.#samples,
      skippedReplays: this.#replays,
      unclear: { count: this.#unclear, firstWhy: this.#firstWhy },
      unknownIds,
      bytes: this.#bytes,
      seconds: Math.max(others / READ_PER_SECOND + this.#matches / COPIED_PER_SECOND, this.#matches / perSecond),
      interrupted: signal?.aborted === true,
    }
  }
}
