import type { Asking } from './asking.ts'
import { OptionError, UnknownGroupError } from './errors.ts'
import { existingGroup } from './existing.ts'
import { isJobName } from './job.ts'
import { refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { isEntryId, timeOf } from './redis/entry-id.ts'
import { HANDBACK } from './redis/keys.ts'
import { readPending, type PendingAt, type PendingSeen, type PendingSource } from './redis/pending.ts'
import type { Ask } from './scan.ts'

/** What a group has in hand: entries that were delivered and are not settled. */

export interface PendingOptions {
  /** How many entries at most, up to 1000. @default 100 */
  limit?: number
  /** Go on behind this one: `next` of the page before. @default the oldest */
  after?: string
  /** Only entries whose consumer has let this time pass, in ms, since it got or renewed them. @default 0 */
  minIdleMs?: number
  /** Only what this worker has. @default all */
  worker?: string
}

export interface PendingJob {
  /** The stream itself, or what the group alone sees again. */
  readonly source: PendingSource
  readonly entryId: string
  /** The job's id: that of its entry, unless the entry says another. */
  readonly jobId: string
  /** Null where the entry is gone, or has no name that is one. */
  readonly job: string | null
  /** Null for an entry that was handed back and waits for the next worker. */
  readonly worker: string | null
  /** Time since the delivery or its last renewal, in ms. */
  readonly idleMs: number
  /** How often it was delivered. */
  readonly deliveries: number
  /** What is left of its lease, in ms; 0 if it has run out and another worker may take it; null where it has none. */
  readonly leaseLeftMs: number | null
  /** When the job was published, in ms since the epoch. */
  readonly publishedMs: number
  /** The entry is no longer in its stream: somebody deleted it. The next worker that comes by settles it as gone. */
  readonly isGone: boolean
}

export interface PendingPage {
  /** In the order of their entry ids. */
  readonly jobs: readonly PendingJob[]
  /** Give it as `after` to go on; null if there is nothing more. A page may be short, or empty, and still have one. */
  readonly next: string | null
  /** How many entries the group has pending, whatever was asked for. */
  readonly total: number
  /** Those of them that are on the redelivery stream. */
  readonly onRedelivery: number
  /** The lease of the group, in ms; null where no worker has declared one yet. */
  readonly leaseMs: number | null
}

/** How many entries one call looks at before it gives the caller a cursor, found or not. */
const MOST_LOOKED_AT = 20_000

/** @throws OptionError; MillraceError ERR_NOT_FOUND; UnknownGroupError; RedisError. */
export async function pendingJobs(
  asking: Asking,
  stream: string,
  group: string,
  options: PendingOptions = {},
): Promise<PendingPage> {
  refuseUnknownKeys('pending', options, ['limit', 'after', 'minIdleMs', 'worker'])
  const limit = wholeNumber('limit', options.limit, { or: 100, max: 1000 })
  const minIdleMs = wholeNumber('minIdleMs', options.minIdleMs, { or: 0, min: 0 })
  const worker = checkWorker(options.worker)
  let after = cursorOf(options.after)
  const ask: Ask = (question) => asking.run(`the pending entries of ${stream}`, question)
  const { groups } = await ask((client) => existingGroup(client, stream, group))
  const jobs: PendingJob[] = []
  for (let looked = 0; ;) {
    const asked = { after, most: minIdleMs > 0 ? Infinity : limit - jobs.length, minIdleMs, worker }
    const page = await ask((client) => readPending(client, { stream, group }, asked))
    if (page === undefined) throw new UnknownGroupError({ stream, group, groups }, undefined)
    looked += page.looked
    after = page.next
    // More may have been found than there is room for: then the cursor is the last one that is told of.
    const found = page.rows.slice(0, limit - jobs.length)
    jobs.push(...found.map((row) => pendingJob(row, page.leaseMs)))
    if (found.length < page.rows.length) after = found.at(-1)
    if (after === undefined || jobs.length === limit || looked >= MOST_LOOKED_AT) {
      const { onStream, onRedelivery, leaseMs = null } = page
      return { jobs, next: cursorText(after), total: onStream + onRedelivery, onRedelivery, leaseMs }
    }
  }
}

function pendingJob(seen: PendingSeen, leaseMs: number | undefined): PendingJob {
  const { source, entryId, idleMs, deliveries, isGone } = seen
  const isHandedBack = seen.worker === HANDBACK
  const jobId = isEntryId(seen.id) ? seen.id : entryId
  return {
    source,
    entryId,
    jobId,
    job: isJobName(seen.job) ? seen.job : null,
    worker: isHandedBack ? null : seen.worker,
    idleMs,
    deliveries,
    leaseLeftMs: isHandedBack || leaseMs === undefined ? null : Math.max(0, leaseMs - idleMs),
    publishedMs: timeOf(jobId),
    isGone,
  }
}

function checkWorker(worker: unknown): string | undefined {
  if (worker === undefined || (typeof worker === 'string' && worker !== '' && worker.length <= 1000)) return worker
  throw new OptionError(`expected \`worker\` to be the name of a worker, got ${shown(worker)}`)
}

function cursorText(at: PendingAt | undefined): string | null {
  return at === undefined ? null : `${at.source}:${at.entryId}`
}

function cursorOf(text: unknown): PendingAt | undefined {
  if (text === undefined) return undefined
  const [, source = '', entryId = ''] = (typeof text === 'string' && /^(stream|redelivery):(.+)$/.exec(text)) || []
  if (isEntryId(entryId)) return { source: source as PendingSource, entryId }
  throw new OptionError(`expected \`after\` to be what a page before gave as \`next\`, got ${shown(text)}`)
}
