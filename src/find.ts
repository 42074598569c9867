import { askAgain } from './ask-again.ts'
import type { Asking } from './asking.ts'
import { OptionError } from './errors.ts'
import { isJobName } from './job.ts'
import { refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { checkRange, historyRange, RANGE_KEYS, type HistoryRange, type IdRange, type Range } from './range.ts'
import { compareIds, isEntryId, timeOf } from './redis/entry-id.ts'
import { readEntries, readEntriesBack } from './redis/reading.ts'
import type { RawEntry } from './redis/replies.ts'
import { checkStreamName } from './redis/keys.ts'
import { matchesJob, scannedJob, scanPages, type Ask, type JobFilter, type ScannedJob } from './scan.ts'
import { compileWhere } from './where.ts'

export interface FindOptions extends Range {
  /** Jobs of this name. */
  readonly job?: string
  /** Jobs whose payload has this text in it, letter for letter. */
  readonly text?: string
  /** Jobs for which this expression (CEL) holds, such as `data.order > 40`. */
  readonly where?: string
  /** How many jobs at most, up to 10 000. @default 20 */
  readonly limit?: number
  /** How many entries are looked at, at most. @default 100 000 */
  readonly mostScanned?: number
  /** Only what lies behind this entry, in the order of the search: `next` of the search before. */
  readonly after?: string
  /** The newest first. @default false */
  readonly newest?: boolean
  /** Ends it early: what was found until then is told. */
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: FindProgress) => void
}

export interface FindProgress {
  readonly scanned: number
  readonly found: number
}

export interface FoundJob {
  readonly id: string
  readonly entryId: string
  /** Null where the entry has no name that is one. */
  readonly job: string | null
  readonly publishedMs: number
  /** Size of the payload; null if it has none. */
  readonly bytes: number | null
  readonly replayOf: string | null
  /** The payload's first 500 characters. */
  readonly preview: string | null
}

export interface Found {
  readonly jobs: readonly FoundJob[]
  /** How many entries were looked at. */
  readonly scanned: number
  /** How many there are in the range about, if entries came evenly; exact where the range is the whole history. */
  readonly about: number
  /** The first and the last entry that were looked at, in the order of the search; null if none was. */
  readonly fromId: string | null
  readonly toId: string | null
  /** Give it as `after` to go on; null if all that was asked for was looked at. */
  readonly next: string | null
  /** Whether the signal ended it. */
  readonly interrupted: boolean
  /** Jobs of which the expression could not tell, and why of the first one: they are not told. */
  readonly unclear: { readonly count: number; readonly id: string | null; readonly why: string | null }
}

/** What is looked for, once it is checked. */
export interface FindAsked {
  readonly filter: JobFilter
  readonly low: string | undefined
  readonly high: string | undefined
  readonly limit: number
  readonly mostScanned: number
  readonly after: string | undefined
  readonly newest: boolean
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: FindProgress) => void) | undefined
}

const KEYS = [...RANGE_KEYS, 'job', 'text', 'where', 'limit', 'mostScanned', 'after', 'newest', 'signal', 'onProgress']
const MOST_FOUND = 10_000
const PREVIEW_CHARACTERS = 500

/** @throws OptionError, WhereError */
export function checkFind(stream: string, options: FindOptions): FindAsked {
  refuseUnknownKeys('find', options, KEYS)
  checkStreamName(stream)
  const { from, to, job, text, where, after, newest, signal, onProgress } = options
  if (job !== undefined && !isJobName(job)) {
    throw new OptionError(
      `expected \`job\` to be a job name of 1 to 100 letters, digits and _ . : -, got ${shown(job)}`,
    )
  }
  if (text !== undefined && (typeof text !== 'string' || text === '')) {
    throw new OptionError(`expected \`text\` to be a text, got ${shown(text)}`)
  }
  if (after !== undefined && !(typeof after === 'string' && isEntryId(after) && !/(^|-)0\d/.test(after))) {
    throw new OptionError(`expected \`after\` to be the id of an entry, got ${shown(after)}`)
  }
  if (newest !== undefined && typeof newest !== 'boolean') {
    throw new OptionError(`expected \`newest\` to be true or false, got ${shown(newest)}`)
  }
  const ends = checkRange({ ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) })
  return {
    ...ends,
    filter: { job, text, where: where === undefined ? undefined : compileWhere(where) },
    limit: wholeNumber('limit', options.limit, { or: 20, max: MOST_FOUND }),
    mostScanned: wholeNumber('mostScanned', options.mostScanned, { or: 100_000 }),
    after,
    newest: newest === true,
    signal,
    onProgress,
  }
}

/** Finds jobs in the history of a stream; see `Inspector.find`. */
export async function findJobs(asking: Asking, stream: string, asked: FindAsked): Promise<Found> {
  const { after, newest, signal } = asked
  const ask: Ask = (question) => askAgain(asking, { what: `jobs of ${stream}`, signal }, question)
  // What lies behind a cursor that the history has lost is not all there any more: that is told, and not passed over.
  const low = after === undefined || newest ? asked.low : higher(asked.low, after)
  const high = after === undefined || !newest ? asked.high : lower(asked.high, after)
  const history = await ask((client) => historyRange(client, stream, { low, high }))
  const search = new Search(asked)
  const range = scanRange(history.range, asked)
  if (range === undefined) return search.found(0)
  const read = newest ? readEntriesBack : readEntries
  const pages = scanPages(ask, { ...range, signal }, (client, ends) => read(client, stream, ends))
  for await (const page of pages) {
    if (!search.take(page.entries, page.next !== undefined)) break
  }
  return search.found(aboutIn(history))
}

/** The range in the order of the search: from its first end to its last. */
function scanRange(range: IdRange | undefined, { after, newest }: FindAsked): IdRange | undefined {
  if (range === undefined) return undefined
  const { low, high } = range
  if (!newest) {
    if (after === undefined || compareIds(after, low) < 0) return { low, high }
    return compareIds(after, high) < 0 ? { low: `(${after}`, high } : undefined
  }
  if (after === undefined || compareIds(after, high) > 0) return { low: high, high: low }
  return compareIds(after, low) > 0 ? { low: `(${after}`, high: low } : undefined
}

class Search {
  readonly #asked: FindAsked
  readonly #jobs: FoundJob[] = []
  #scanned = 0
  #fromId: string | null = null
  #toId: string | null = null
  #next: string | null = null
  #unclear: { count: number; id: string | null; why: string | null } = { count: 0, id: null, why: null }

  constructor(asked: FindAsked) {
    this.#asked = asked
  }

  /** Looks at a page. @returns whether the search goes on. */
  take(entries: readonly RawEntry[], hasMore: boolean): boolean {
    const { limit, mostScanned, onProgress, signal } = this.#asked
    for (const [at, { id, fields }] of entries.entries()) {
      this.#look(scannedJob(id, fields))
      this.#fromId ??= id
      this.#toId = id
      this.#scanned++
      const isLast = at === entries.length - 1 && !hasMore
      this.#next = isLast ? null : id
      if (this.#jobs.length >= limit || this.#scanned >= mostScanned) return false
    }
    onProgress?.({ scanned: this.#scanned, found: this.#jobs.length })
    return signal?.aborted !== true
  }

  found(about: number): Found {
    return {
      jobs: this.#jobs,
      scanned: this.#scanned,
      about: Math.max(about, this.#scanned),
      fromId: this.#fromId,
      toId: this.#toId,
      next: this.#next,
      interrupted: this.#asked.signal?.aborted === true,
      unclear: this.#unclear,
    }
  }

  #look(scanned: ScannedJob): void {
    const isMeant = matchesJob(this.#asked.filter, scanned)
    if (isMeant === true) this.#jobs.push(foundJob(scanned))
    if (typeof isMeant !== 'string') return
    const { count, id, why } = this.#unclear
    this.#unclear = { count: count + 1, id: id ?? scanned.id, why: why ?? isMeant }
  }
}

function foundJob({ id, entryId, job, json, replayOf }: ScannedJob): FoundJob {
  return {
    id,
    entryId,
    job,
    publishedMs: timeOf(id),
    bytes: json === undefined ? null : Buffer.byteLength(json),
    replayOf: replayOf ?? null,
    preview: json?.slice(0, PREVIEW_CHARACTERS) ?? null,
  }
}

/** Entries of the range, as if they came evenly between the oldest and the newest. */
function aboutIn({ entries, oldestId, newestId, range }: HistoryRange): number {
  if (range === undefined || oldestId === undefined || newestId === undefined) return 0
  const [first, last] = [timeOf(oldestId), timeOf(newestId)]
  if (last <= first) return entries
  const part = (Math.min(last, timeOf(range.high)) - Math.max(first, timeOf(range.low))) / (last - first)
  return Math.round(entries * Math.min(1, Math.max(0, part)))
}

function lower(a: string | undefined, b: string): string {
  return a === undefined || compareIds(a, b) > 0 ? b : a
}

function higher(a: string | undefined, b: string): string {
  return a === undefined || compareIds(a, b) < 0 ? b : a
}
