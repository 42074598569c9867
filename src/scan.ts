import { isJobName } from './job.ts'
import type { Client } from './redis/connection.ts'
import type { EntryPage, EntryRange } from './redis/reading.ts'
import type { IdRange } from './range.ts'
import { isEntryId } from './redis/entry-id.ts'
import type { Where } from './where.ts'
import { originalOf } from './wire.ts'

/** Looking through the history of a stream: its pages, and which of their jobs are meant. */

/** How a question gets to Redis. */
export type Ask = <Told>(ask: (client: Client) => Promise<Told>) => Promise<Told>

export interface ScanPage<Entry> {
  readonly entries: readonly Entry[]
  /** Where a scan that goes on behind this page begins; undefined behind the last. */
  readonly next: string | undefined
}

/**
 * The pages of a range, oldest first, the next of them asked for while the last is looked at. Ends without a word when
 * the signal aborts.
 */
export async function* scanPages<Entry>(
  ask: Ask,
  { low, high, signal }: IdRange & { signal: AbortSignal | undefined },
  read: (client: Client, range: EntryRange) => Promise<EntryPage<Entry>>,
): AsyncGenerator<ScanPage<Entry>> {
  const next = (from: string | undefined) => {
    if (from === undefined || signal?.aborted === true) return undefined
    const page = ask((client) => read(client, { from, to: high }))
    // Whoever takes it hears of its failure; if nobody does, it is nobody's business.
    page.catch(() => {})
    return page
  }
  let reading = next(low)
  while (reading !== undefined) {
    const page = await reading
    reading = next(page.next)
    if (page.entries.length > 0) yield page
  }
}

/** What an entry says of its job, as far as that needs no look at its payload. */
export interface ScannedJob {
  readonly entryId: string
  /** The job's id: the field `id` where there is one, else the entry's. */
  readonly id: string
  /** Null where the entry has no name that is one. */
  readonly job: string | null
  /** The payload's text; undefined where there is none. */
  readonly json: string | undefined
  /** What it is a copy of, as its field says it; undefined where it is none, or says what no replay has written. */
  readonly replayOf: string | undefined
  readonly headers: Readonly<Record<string, string>>
}

const NO_HEADERS: Readonly<Record<string, string>> = {}

/** Reads an entry's fields. The first of duplicate ones counts, as for a worker. */
export function scannedJob(entryId: string, fields: readonly (string | Buffer)[]): ScannedJob {
  let name: string | undefined, json: string | undefined, id: string | undefined, replayOf: string | undefined
  let headers: Record<string, string> | undefined
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const field = textOf(fields[at])
    if (field === 'job') name ??= textOf(fields[at + 1])
    else if (field === 'data') json ??= textOf(fields[at + 1])
    else if (field === 'id') id ??= textOf(fields[at + 1])
    else if (field === 'replay-of') replayOf ??= textOf(fields[at + 1])
    else if (field.startsWith('h-')) {
      headers ??= {}
      headers[field.slice(2)] ??= textOf(fields[at + 1])
    }
  }
  const jobId = id !== undefined && isEntryId(id) ? id : entryId
  return {
    entryId,
    id: jobId,
    job: isJobName(name) ? name : null,
    json,
    replayOf: isOriginal(replayOf) ? replayOf : undefined,
    headers: headers ?? NO_HEADERS,
  }
}

function isOriginal(text: string | undefined): boolean {
  return text !== undefined && originalOf(text) !== undefined
}

function textOf(field: string | Buffer | undefined): string {
  return typeof field === 'string' ? field : (field?.toString() ?? '')
}

/** Which jobs are meant. */
export interface JobFilter {
  readonly job?: string | undefined
  /** The payload's text has this in it, letter for letter. */
  readonly text?: string | undefined
  readonly where?: Where | undefined
}

/** Whether a job is meant; a text says why the expression could not tell: then it is not. */
export function matchesJob(filter: JobFilter, scanned: ScannedJob): boolean | string {
  const { id, job, json, headers } = scanned
  if (filter.job !== undefined && filter.job !== job) return false
  if (filter.text !== undefined && json?.includes(filter.text) !== true) return false
  return filter.where?.test({ id, job: job ?? '', json, headers }) ?? true
}
