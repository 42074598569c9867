import { Sums } from './minutes.ts'
import { MINUTE_MS, minuteOf, readTally, slotOf, sumEntries, type AuditPlace } from '../redis/auditing.ts'
import { readDeadRefs } from '../redis/dead.ts'
import { isEntryId } from '../redis/entry-id.ts'
import { readScheduled } from '../redis/scheduled.ts'
import { TALLY_TTL_MS } from '../redis/tally.ts'
import type { Ask } from '../scan.ts'

/** Gathering what is to be added up: page by page, so that jobs may move between two of them. Whoever adds up must know that. */

export interface AuditScope extends AuditPlace {
  /** The first and the last minute, since the epoch. */
  readonly low: number
  readonly high: number
  /** Whether what is older than the first minute is looked at too, for what can be told by id. */
  readonly isOpen: boolean
  /** The server's time when it was asked. */
  readonly nowMs: number
  /** Whether delayed publishes may have entries behind the range. */
  readonly hasDelayed: boolean
  /**
   * Where the jobs of the range are looked for. `range`: where a server whose clock goes on has them. `copies`: in the whole
   * redelivery stream and among all dead letters too, where those are whose ids are ahead of that clock. `all`: in the whole
   * stream as well, for an entry may carry the id of a job of any minute. @default range
   */
  readonly reach?: 'range' | 'copies' | 'all'
}

export interface Watching {
  readonly signal: AbortSignal | undefined
  /** Entries looked at so far. */
  readonly onEntries: (count: number) => void
}

export interface Gathering {
  readonly sums: Sums
  /** Entries of the stream that are pending and were deleted. */
  readonly lost: ReadonlySet<string>
  /** The same of the redelivery stream, where the ids are not those of the jobs. */
  readonly lostCopies: ReadonlySet<string>
}

const LAST_SEQ = '18446744073709551615'

/** The ends of the scope, as ranges of entries take them. */
export function boundsOf({ low, high, isOpen }: Pick<AuditScope, 'low' | 'high' | 'isOpen'>): {
  from: string
  to: string
} {
  return { from: isOpen ? '-' : `${low * MINUTE_MS}-0`, to: `${(high + 1) * MINUTE_MS - 1}-${LAST_SEQ}` }
}

/** Everything of a range, once. */
export async function gather(ask: Ask, scope: AuditScope, watching: Watching): Promise<Gathering> {
  const sums = new Sums()
  const lost = await addEntries(ask, scope, { sums, watching, source: 0 })
  const lostCopies = await addEntries(ask, scope, { sums, watching, source: 1 })
  await addLetters(ask, scope, { sums, watching })
  await addScheduled(ask, scope, { sums, watching })
  await addTallies(ask, scope, sums)
  return { sums, lost, lostCopies }
}

function isIn({ low, high }: AuditScope, minute: number): boolean {
  return minute >= low && minute <= high
}

const TALLIES = {
  completed: 'completed',
  cancelled: 'cancelled',
  skipped: 'skipped',
  discarded: 'discarded',
  gone: 'gone',
  replayed: 'replayed',
  redriven: 'redriven',
  retried: 'retried',
  waited: 'waited',
  dead: 'died',
} as const

/**
 * Only of hours that have jobs, or may have tallies: foreign producers may have entries of any year, and nobody has asked of
 * all hours since.
 */
async function addTallies(ask: Ask, scope: AuditScope, sums: Sums): Promise<void> {
  const hours = new Set(sums.minutes.map((minute) => minute - (minute % 60)))
  const recent = Math.max(scope.low, Math.floor((scope.nowMs - TALLY_TTL_MS) / MINUTE_MS) - 24 * 60)
  for (let minute = recent - (recent % 60); minute <= scope.high; minute += 60) hours.add(minute)
  for (const minute of hours) {
    const tally = await ask((client) => readTally(client, scope, slotOf(minute).hour))
    for (const [field, count] of tally ?? []) {
      const [of = '', outcome = ''] = field.split(':')
      const at = minute + Number(of)
      if (Object.hasOwn(TALLIES, outcome) && isIn(scope, at)) {
        sums.add(at, TALLIES[outcome as keyof typeof TALLIES], count)
      }
    }
  }
}

interface Adding {
  readonly sums: Sums
  readonly watching: Watching
}

/**
 * Entries are never older than their jobs, but for foreign ones: none before the range is of it. Behind it there may be those
 * of delayed publishes, and in the redelivery stream any.
 */
async function addEntries(
  ask: Ask,
  scope: AuditScope,
  { sums, watching, source }: Adding & { source: 0 | 1 },
): Promise<Set<string>> {
  const { from: low, to: last } = boundsOf(scope)
  const { reach = 'range' } = scope
  const first = reach === 'all' || (reach === 'copies' && source === 1) ? '-' : low
  const to = source === 1 || scope.hasDelayed || reach === 'all' ? '+' : last
  const lost = new Set<string>()
  for (let from: string | undefined = first; from !== undefined;) {
    watching.signal?.throwIfAborted()
    const page = await ask((client) => sumEntries(client, scope, { source, from: from ?? first, to }))
    for (const id of page.lost) if (source === 1 || minuteOf(id) <= scope.high) lost.add(id)
    for (const { minute, settlings, waiting, pending } of page.sums) {
      if (!isIn(scope, minute)) continue
      if (source === 1) {
        sums.add(minute, 'redelivery', waiting + pending)
        continue
      }
      sums.add(minute, 'settlings', settlings)
      sums.add(minute, 'waiting', waiting)
      sums.add(minute, 'pending', pending)
    }
    watching.onEntries(page.entries)
    from = page.next
  }
  return lost
}

async function addLetters(ask: Ask, scope: AuditScope, { sums, watching }: Adding): Promise<void> {
  const isAll = scope.low === 0 || (scope.reach ?? 'range') !== 'range'
  let above: string | undefined = isAll ? undefined : `${scope.low * MINUTE_MS - 1}-${LAST_SEQ}`
  for (let more = true; more;) {
    watching.signal?.throwIfAborted()
    const page = await ask((client) => readDeadRefs(client, scope, { above, upTo: '+' }))
    for (const { id } of page.letters) {
      if (isEntryId(id) && isIn(scope, minuteOf(id))) sums.add(minuteOf(id), 'dead', 1)
    }
    above = page.letters.at(-1)?.deadId ?? above
    more = page.more
  }
}

/** Retries whose record is there: without it nothing will ever be made of them. */
async function addScheduled(ask: Ask, scope: AuditScope, { sums, watching }: Adding): Promise<void> {
  for await (const row of scheduledRows(ask, scope.stream, { group: scope.group, signal: watching.signal })) {
    if (row.hasRecord && isIn(scope, minuteOf(row.id))) sums.add(minuteOf(row.id), 'scheduled', row.entries)
  }
}

/** What is scheduled in one place, by when it is due. Ids that are none are left out. */
export async function* scheduledRows(
  ask: Ask,
  stream: string,
  { group, signal }: { group: string | null; signal: AbortSignal | undefined },
): AsyncGenerator<{ id: string; hasRecord: boolean; entries: number }> {
  let from: { score: string; id: string; inclusive: boolean } | undefined
  for (let more = true; more;) {
    signal?.throwIfAborted()
    const page = await ask((client) => readScheduled(client, stream, group, { from, limit: 500 }))
    for (const { id, bytes, entries } of page.rows) if (isEntryId(id)) yield { id, hasRecord: bytes > 0, entries }
    const last = page.rows.at(-1)
    if (last !== undefined) from = { score: last.score, id: last.id, inclusive: false }
    more = page.more && last !== undefined
  }
}
