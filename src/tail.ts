import type { Asking } from './asking.ts'
import { sleep } from './clock.ts'
import { OptionError, RedisError } from './errors.ts'
import { refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { checkRange, historyRange, type IdRange } from './range.ts'
import { checkStreamName } from './redis/keys.ts'
import { compareIds, timeOf } from './redis/entry-id.ts'
import { readEntries, readEntriesBack, readHistoryOf, type EntryPage, type EntryRange } from './redis/reading.ts'
import type { RawEntry } from './redis/replies.ts'
import { matchesJob, scannedJob, scanPages, type Ask, type JobFilter } from './scan.ts'
import { compileWhere } from './where.ts'

/** The end of a stream: its last entries, and those that come. */

export interface TailOptions {
  /** How many of the newest entries that match, up to 10 000; 0 for none of those there are. @default 10, with `from` all */
  last?: number
  /** Go on with what is published from now on, until the signal aborts, also while Redis is away. @default false */
  follow?: boolean
  /** The first entry that counts: its id, or the time in ms since the epoch from which on. @default the oldest entry */
  from?: number | string
  /** Only jobs of this name. */
  job?: string
  /** Only jobs whose payload has this in its text, letter for letter. */
  text?: string
  /** Only jobs for which this expression is true. */
  where?: string
  /** Ends it without an error. */
  signal?: AbortSignal
  /** Told of what is no entry. @default nobody */
  onNotice?: (notice: TailNotice) => void
}

export interface TailEntry {
  readonly entryId: string
  /** That of the entry, unless it says another. */
  readonly jobId: string
  /** Null where the entry has no name that is one. */
  readonly job: string | null
  /** When the entry was published, in ms since the epoch. */
  readonly publishedMs: number
  /** The text of the payload; null where there is none. */
  readonly payload: string | null
  readonly headers: Readonly<Record<string, string>>
  /** What it is a copy of; null where it is none. */
  readonly replayOf: string | null
}

/**
 * `bound`: fewer entries than asked for were found among as many as one search looks at. `away` and `back`: Redis cannot be
 * asked, and can again. `lost`: entries behind `afterId` may have been removed before they were read. `unclear`: the
 * expression could not tell of an entry, the first of perhaps many; such entries do not count.
 */
export type TailNotice =
  | { readonly kind: 'bound'; readonly scanned: number; readonly oldestId: string }
  | { readonly kind: 'away'; readonly error: Error }
  | { readonly kind: 'back' }
  | { readonly kind: 'lost'; readonly afterId: string; readonly oldestId: string }
  | { readonly kind: 'unclear'; readonly entryId: string; readonly why: string }

/** Pages that a search backwards reads, at most: 100 000 entries, or 200 MiB of them. */
const MOST_PAGES = 200
const POLL_MS = 200
const AWAY_MS = 500

/** @throws OptionError at once; from the first step on MillraceError ERR_NOT_FOUND and ERR_HISTORY, RedisError. */
export function tailStream(asking: Asking, stream: string, options: TailOptions = {}): AsyncGenerator<TailEntry> {
  checkStreamName(stream)
  return new Tail(asking, stream, options).run()
}

const KEYS = ['last', 'follow', 'from', 'job', 'text', 'where', 'signal', 'onNotice']

class Tail {
  readonly #ask: Ask
  readonly #stream: string
  readonly #filter: JobFilter
  readonly #last: number | undefined
  readonly #low: string | undefined
  readonly #options: TailOptions
  #isUnclear = false

  constructor(asking: Asking, stream: string, options: TailOptions) {
    refuseUnknownKeys('tail', options, KEYS)
    const { from, job, text, where, follow } = options
    for (const [name, value] of Object.entries({ job, text })) {
      if (value !== undefined && typeof value !== 'string') {
        throw new OptionError(`expected \`${name}\` to be a text, got ${shown(value)}`)
      }
    }
    if (follow !== undefined && typeof follow !== 'boolean') {
      throw new OptionError(`expected \`follow\` to be true or false, got ${shown(follow)}`)
    }
    const last = wholeNumber('last', options.last, { or: -1, min: 0, max: 10_000 })
    this.#last = last >= 0 ? last : from === undefined ? 10 : undefined
    this.#low = checkRange(from === undefined ? {} : { from }).low
    this.#filter = { job, text, where: where === undefined ? undefined : compileWhere(where) }
    this.#options = options
    this.#stream = stream
    this.#ask = (question) => asking.run(`the entries of ${stream}`, question)
  }

  async *run(): AsyncGenerator<TailEntry> {
    const history = await this.#unlessAborted(
      this.#ask((client) => historyRange(client, this.#stream, { low: this.#low, high: undefined })),
    )
    if (history === undefined) return
    const { range, lastId } = history
    if (range !== undefined) yield* this.#last === undefined ? this.#all(range) : this.#newest(range, this.#last)
    if (this.#options.follow === true) yield* this.#coming(lastId)
  }

  /** All of a range, oldest first. */
  async *#all(range: IdRange): AsyncGenerator<TailEntry> {
    const { signal } = this.#options
    const pages = scanPages(this.#ask, { ...range, signal }, (client, part) => readEntries(client, this.#stream, part))
    for await (const { entries } of pages) yield* this.#meant(entries)
  }

  /** The newest of a range that match, oldest first. */
  async *#newest({ low, high }: IdRange, most: number): AsyncGenerator<TailEntry> {
    const found: TailEntry[] = []
    let [scanned, oldestId] = [0, high]
    let to: string | undefined = high
    for (let pages = 0; to !== undefined && found.length < most; pages++) {
      if (pages === MOST_PAGES) {
        this.#tell({ kind: 'bound', scanned, oldestId })
        break
      }
      const range: EntryRange = { from: to, to: low }
      const page: EntryPage<RawEntry> | undefined = await this.#unlessAborted(
        this.#ask((client) => readEntriesBack(client, this.#stream, range)),
      )
      if (page === undefined) return
      for (const entry of this.#meant(page.entries)) if (found.length < most) found.push(entry)
      scanned += page.entries.length
      oldestId = page.entries.at(-1)?.id ?? oldestId
      to = page.next
    }
    yield* found.reverse()
  }

  /** What comes behind an entry, page after page: what was not read yet stays in Redis, so that nothing is missed. */
  async *#coming(afterId: string): AsyncGenerator<TailEntry> {
    const { signal } = this.#options
    let last = afterId
    let isAway = false
    while (signal?.aborted !== true) {
      try {
        const from = `(${last}`
        const page = await this.#unlessAborted(
          this.#ask((client) => readEntries(client, this.#stream, { from, to: '+' })),
        )
        if (page === undefined) return
        if (isAway) await this.#isBack(last)
        isAway = false
        yield* this.#meant(page.entries.filter(({ id }) => this.#low === undefined || compareIds(id, this.#low) >= 0))
        last = page.entries.at(-1)?.id ?? last
        if (page.next === undefined) await sleep(POLL_MS, signal)
      } catch (error) {
        if (!(error instanceof RedisError)) throw error
        if (!isAway) this.#tell({ kind: 'away', error })
        isAway = true
        await sleep(AWAY_MS, signal)
      }
    }
  }

  async #isBack(lastId: string): Promise<void> {
    const history = await this.#ask((client) => readHistoryOf(client, this.#stream))
    this.#tell({ kind: 'back' })
    if ('type' in history || history.oldestId === undefined || history.hasLost === false) return
    if (compareIds(history.oldestId, lastId) > 0) {
      this.#tell({ kind: 'lost', afterId: lastId, oldestId: history.oldestId })
    }
  }

  *#meant(entries: readonly RawEntry[]): Generator<TailEntry> {
    for (const { id, fields } of entries) {
      const scanned = scannedJob(id, fields)
      const isMeant = matchesJob(this.#filter, scanned)
      if (isMeant === true) {
        const { job, json = null, headers, replayOf = null } = scanned
        yield { entryId: id, jobId: scanned.id, job, publishedMs: timeOf(id), payload: json, headers, replayOf }
      } else if (isMeant !== false && !this.#isUnclear) {
        this.#isUnclear = true
        this.#tell({ kind: 'unclear', entryId: id, why: isMeant })
      }
    }
  }

  #tell(notice: TailNotice): void {
    this.#options.onNotice?.(notice)
  }

  /** Whoever stops must not wait until a Redis that is away has been given up. */
  async #unlessAborted<Told>(asked: Promise<Told>): Promise<Told | undefined> {
    const { signal } = this.#options
    if (signal === undefined) return asked
    asked.catch(() => {})
    let stop = () => {}
    const aborted = new Promise<undefined>((resolve) => {
      stop = () => resolve(undefined)
      if (signal.aborted) stop()
      else signal.addEventListener('abort', stop, { once: true })
    })
    try {
      return await Promise.race([asked, aborted])
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }
}
