import type { Drain, ExplainedGroup, GroupState, Paused, Pending, Rewound, Settled, UnknownWhy } from './explanation.ts'
import { compareIds, hasMadeId, isCopyId, isEntryId, timeOf } from '../redis/entry-id.ts'
import { notesOf } from './notes.ts'
import type {
  Counted,
  EntrySearch,
  GroupFacts,
  JobFacts,
  PendingFacts,
  UnreadFacts,
  WorkersFacts,
} from '../redis/explaining.ts'
import { HANDBACK } from '../redis/keys.ts'
import { workerOf } from '../stats.ts'

/** What follows from the facts: exactly one state for each group. Pure. */

const LEASE_MS = 10_000
const MAX_DELIVERIES = 3

/** A job, what its stream tells of it, and how the search for its entry went. */
export interface Told {
  readonly stream: string
  readonly jobId: string
  readonly job: JobFacts
  readonly search: EntrySearch
}

function explainedGroup(told: Told, facts: GroupFacts): Omit<ExplainedGroup, 'sentences'> {
  const { nowMs, cancelledMs } = told.job
  return {
    group: facts.group,
    state: stateOf(told, facts),
    cancelledMs: cancelledMs ?? facts.cancelledMs ?? null,
    paused: pausedOf(facts.paused, nowMs),
    ...(facts.notes !== undefined && { notes: notesOf(facts.notes) }),
    rewinds: rewindsOf(facts.rewinds).filter(({ toId, fromId }) => isWithin(entryOf(told), toId, fromId)),
  }
}

function stateOf(told: Told, facts: GroupFacts): GroupState {
  const { pending, unread, scheduled, letter, present } = facts
  if (scheduled !== undefined) {
    const { problem } = scheduled
    return {
      at: 'scheduled',
      ...drainOf(present),
      dueMs: finite(scheduled.dueMs),
      attempt: facts.job?.attempt ?? 0,
      problem,
    }
  }
  if (letter !== undefined) return { at: 'dead', letter }
  if (pending !== undefined) return pendingState(facts, pending)
  if (unread !== undefined) return notDelivered(told, facts, unread)
  if (facts.lost !== undefined) return { at: 'nowhere', place: facts.lost }
  if (facts.outcome !== undefined) {
    const { outcome, atMs } = facts.outcome
    return { at: 'settled', outcome, evidence: 'recorded', atMs, counts: facts.counts ?? null }
  }
  if (facts.place === 'finished' && facts.hasEntry) return finished(told, facts)
  if (isCopyId(told.jobId) && wasCopied(told, facts.counts)) return settled(facts)
  return absent(told, facts)
}

/**
 * The states of all groups. What one group still has was there once: if its entry was trimmed since, the others have settled
 * it, or it would have been kept for them.
 */
export function explainedGroups(told: Told, facts: readonly GroupFacts[]): Omit<ExplainedGroup, 'sentences'>[] {
  const groups = facts.map((one) => ({ facts: one, group: explainedGroup(told, one) }))
  const isKnown = groups.some(({ group }) => isKnownIn(group.state))
  return groups.map(({ facts: one, group }) =>
    isKnown && group.state.at === 'trimmed' ? { ...group, state: finished(told, one) } : group,
  )
}

/** Whether the state of a group shows that there is, or was, such a job. */
export function isKnownIn({ at }: GroupState): boolean {
  return at !== 'trimmed' && at !== 'unknown'
}

/** It is in the stream, and the group has passed it. */
function finished(told: Told, facts: GroupFacts): GroupState {
  const { startId, rewinds } = facts
  const entryId = entryOf(told)
  const wasGiven = startId === undefined || entryId === undefined || compareIds(entryId, startId) > 0
  const isRewound = rewindsOf(rewinds).some(({ toId, fromId }) => isWithin(entryId, toId, fromId))
  return wasGiven || isRewound ? settled(facts) : { at: 'before-group', startId }
}

/** How it was settled is not written down, but the outcomes of its minute are counted. */
function settled({ counts, cancelledMs, records }: GroupFacts): Settled {
  const likely = counts === undefined ? undefined : likelyOutcome(counts, cancelledMs !== undefined)
  const told = likely ?? { outcome: null, evidence: 'none' as const }
  // Of a group that records outcomes and has none of this job nothing is certain.
  const evidence = records && told.evidence === 'certain' ? 'likely' : told.evidence
  return { at: 'settled', atMs: null, counts: counts ?? null, outcome: told.outcome, evidence }
}

const FINAL = ['completed', 'cancelled', 'skipped', 'discarded', 'gone'] as const

function likelyOutcome(counts: Counted, isCancelled: boolean): Pick<Settled, 'outcome' | 'evidence'> | undefined {
  const found = FINAL.filter((name) => counts[name] > 0)
  const [only, ...others] = found
  if (only === undefined) return undefined
  if (others.length === 0) return { outcome: only, evidence: 'certain' }
  if (isCancelled && found.includes('cancelled')) return { outcome: 'cancelled', evidence: 'likely' }
  const most = found.reduce((best, name) => (counts[name] > counts[best] ? name : best), only)
  return { outcome: most, evidence: 'likely' }
}

/** Nothing of it is in the stream or in the group. */
function absent(told: Told, facts: GroupFacts): GroupState {
  const why = absenceOf(told)
  return why === 'trimmed' ? { at: why, counts: facts.counts ?? null } : { at: 'unknown', why }
}

/** What it may mean that nothing of a job is there. */
export function absenceOf({ jobId, job, search }: Told): UnknownWhy | 'trimmed' {
  if (search.how === 'gave-up') return 'not-found'
  const { oldestId, hasLost, nowMs, lastId } = job
  const isMade = hasMadeId(jobId)
  if (isMade ? timeOf(jobId) > nowMs : compareIds(jobId, lastId) > 0) return 'newer'
  const isOlder = oldestId === undefined || compareIds(jobId, oldestId) < 0
  if (isOlder && hasLost !== false && !isCopyId(jobId)) return 'trimmed'
  if (isOlder && !isMade) return 'older'
  return isMade && !isCopyId(jobId) ? 'delayed' : 'never'
}

/** A copy leaves no entry behind when it is settled; that there was one follows from its number and its minute. */
function wasCopied({ jobId, job }: Told, counts: Counted | undefined): boolean {
  const number = Number(jobId.slice(jobId.indexOf('-') + 1)) - 2e15
  return counts !== undefined && counts.replayed > 0 && number <= Number(job.copiedSeq ?? 0)
}

function pendingState(facts: GroupFacts, pending: PendingFacts): Pending {
  const { entryId, consumer, idleMs, deliveries, about, seenMs } = pending
  const leaseMs = facts.leaseMs ?? LEASE_MS
  const worker = { name: consumer, ...hostOf(about), lastHeardMs: seenMs ?? null }
  return {
    at: 'pending',
    ...drainOf(facts.present),
    source: facts.source,
    entryId,
    worker: consumer === HANDBACK ? null : worker,
    idleMs,
    deliveries,
    maxDeliveries: facts.maxDeliveries ?? MAX_DELIVERIES,
    leaseMs,
    leaseLeftMs: leaseMs - idleMs,
    hasEntry: facts.job !== undefined,
  }
}

function notDelivered(told: Told, facts: GroupFacts, unread: UnreadFacts): GroupState {
  const { entryId, lastDeliveredId, isExact, lag } = unread
  const drain = drainOf(facts.present)
  const ahead = isExact ? unread.counted : estimated(unread)
  const isPaused = pausedOf(facts.paused, told.job.nowMs) !== null || pausedOf(told.job.paused, told.job.nowMs) !== null
  const canTell = ahead !== null && drain.perSecond > 0 && drain.workers > 0 && !isPaused
  return {
    at: 'not-delivered',
    ...drain,
    source: facts.source,
    entryId,
    lastDeliveredId,
    ahead,
    isAheadExact: isExact,
    lag: lag ?? null,
    etaSeconds: canTell ? ahead / drain.perSecond : null,
    attempt: facts.job?.attempt ?? 0,
  }
}

/** As if entries came evenly from the first that is not delivered to the newest. */
function estimated({ entryId, counted, lag, firstUnreadId, newestId }: UnreadFacts): number | null {
  if (lag === undefined || firstUnreadId === undefined || newestId === undefined) return null
  const [first, own, last] = [timeOf(firstUnreadId), timeOf(entryId), timeOf(newestId)]
  const part = last > first ? Math.min(1, Math.max(0, (own - first) / (last - first))) : 1
  return Math.min(Math.max(counted, Math.round(lag * part)), Math.max(counted, lag - 1))
}

function drainOf({ workers, about, lastHeardMs }: WorkersFacts): Drain {
  const rate = about.reduce((sum, text) => sum + workerOf(text).perSecond, 0)
  // Of very many workers only some are asked.
  const perSecond = about.length === 0 ? 0 : (rate * Math.max(workers, about.length)) / about.length
  return { workers, perSecond: Math.round(perSecond * 10) / 10, lastHeardMs: lastHeardMs ?? null }
}

/** Any process could have written it. */
function hostOf(about: string | undefined): { host: string | null; pid: number | null } {
  try {
    const told = JSON.parse(about ?? '{}') as Record<string, unknown> | null
    const [host, pid] = [told?.['host'], told?.['pid']]
    return {
      host: typeof host === 'string' ? host.slice(0, 100) : null,
      pid: typeof pid === 'number' && Number.isSafeInteger(pid) ? pid : null,
    }
  } catch {
    return { host: null, pid: null }
  }
}

/** A pause that is not over; null for what is none, or none that can be read. */
export function pausedOf(text: string | undefined, nowMs: number): Paused | null {
  if (text === undefined) return null
  try {
    const told = JSON.parse(text) as Record<string, unknown> | null
    if (typeof told !== 'object' || told === null) return null
    const { sinceMs, untilMs, by, reason } = told
    const until = typeof untilMs === 'number' ? untilMs : null
    if (until !== null && until <= nowMs) return null
    const word = (value: unknown) => (typeof value === 'string' ? value.slice(0, 500) : '')
    return { sinceMs: typeof sinceMs === 'number' ? sinceMs : 0, untilMs: until, by: word(by), reason: word(reason) }
  } catch {
    return null
  }
}

function rewindsOf(text: string): Rewound[] {
  return text.split(' ').flatMap((one) => {
    const [atMs = '', toId = '', fromId = ''] = one.split(':')
    return /^\d{1,15}$/.test(atMs) && isEntryId(toId) && isEntryId(fromId) ? [{ atMs: Number(atMs), toId, fromId }] : []
  })
}

function isWithin(id: string | undefined, toId: string, fromId: string): boolean {
  return id !== undefined && compareIds(id, toId) > 0 && compareIds(id, fromId) <= 0
}

function entryOf({ search }: Told): string | undefined {
  return search.how === 'found' ? search.entryId : undefined
}

function finite(ms: number): number | null {
  return Number.isFinite(ms) ? ms : null
}
