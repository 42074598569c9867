import { missingLetters, missingOf } from './minutes.ts'
import type { Judged } from './judge.ts'
import type { OrphanKind, Orphans } from './orphans.ts'
import { MINUTE_MS, minuteOf } from '../redis/auditing.ts'

/** What an audit found, in words. */

/**
 * `missing`: jobs of a minute that are nowhere. `surplus`: more outcomes than jobs. `gone`: jobs that were deleted while they
 * were pending, as workers have noticed; `pending-without-entry`: such as no worker has come across yet. The others as in
 * their sentences.
 */
export type FindingKind = 'missing' | 'surplus' | 'gone' | 'pending-without-entry' | OrphanKind

export interface AuditFinding {
  readonly kind: FindingKind
  /** When the minute begins whose jobs these are, in ms since the epoch; null where they are told by id, of any minute. */
  readonly minuteMs: number | null
  readonly count: number
  /** As far as they are known: ids of jobs, at most 100. */
  readonly ids: readonly string[]
  /** Whether a repair can hand back those that are named. */
  readonly isRepairable: boolean
  readonly sentence: string
}

/** Ids of a finding that are told. */
export const MOST_IDS = 100

const WORDS: Readonly<Record<OrphanKind | 'pending-without-entry', readonly [one: string, many: string]>> = {
  'retry-without-time': [
    'retry has its record but no time, so that nothing will ever move it',
    'retries have their records but no time, so that nothing will ever move them',
  ],
  'retry-without-record': [
    'retry has a time but no record of what is to run',
    'retries have a time but no record of what is to run',
  ],
  'retry-missing': [
    'job should be scheduled for a retry and is not',
    'jobs should be scheduled for a retry and are not',
  ],
  'letter-missing': ['dead letter was deleted by hand', 'dead letters were deleted by hand'],
  'redelivery-missing': [
    'job in the redelivery stream was acked or deleted by hand before it was settled',
    'jobs in the redelivery stream were acked or deleted by hand before they were settled',
  ],
  'outcome-missing': ['job was acked without an outcome', 'jobs were acked without an outcome'],
  'delayed-without-time': [
    'delayed publish has its record but no time, so that nothing will ever publish it',
    'delayed publishes have their records but no time, so that nothing will ever publish them',
  ],
  'delayed-without-record': [
    'delayed publish has a time but no record of what is to be published',
    'delayed publishes have a time but no record of what is to be published',
  ],
  'pending-without-entry': [
    'pending job was trimmed or deleted from the stream and cannot run any more',
    'pending jobs were trimmed or deleted from the stream and cannot run any more',
  ],
}

/** These leave a job without a place, so that its minute lacks it. */
const LACKED: readonly OrphanKind[] = [
  'retry-without-time',
  'retry-without-record',
  'retry-missing',
  'letter-missing',
  'redelivery-missing',
]

/** How many jobs that are told by id a minute lacks. */
export function namedIn(orphans: Orphans): Map<number, { all: Set<string>; letters: number }> {
  const named = new Map<number, { all: Set<string>; letters: number }>()
  for (const kind of LACKED) {
    for (const id of orphans.get(kind) ?? []) {
      const minute = minuteOf(id)
      const found = named.get(minute) ?? { all: new Set<string>(), letters: 0 }
      found.all.add(id)
      if (kind === 'letter-missing') found.letters += 1
      named.set(minute, found)
    }
  }
  return named
}

/** What is told by id, one finding for each kind. */
export function namedFinding(kind: OrphanKind | 'pending-without-entry', ids: ReadonlySet<string>): AuditFinding {
  const [one, many] = WORDS[kind]
  const isRepairable = kind !== 'pending-without-entry' && kind !== 'delayed-without-record'
  const sentence = ids.size === 1 ? `1 ${one}` : `${text(ids.size)} ${many}`
  return { kind, minuteMs: null, count: ids.size, ids: [...ids].slice(0, MOST_IDS), isRepairable, sentence }
}

/** What a minute lacks beyond what is told by id, and what it has too much. */
export interface MinuteBalance {
  readonly missing: number
  /** Of these, dead letters. */
  readonly deleted: number
  readonly surplus: number
}

/**
 * What is known to be nowhere is so whatever else ended too often: a fault must not hide another one. Dead letters are known
 * from the tally, which says how many should be there; the rest only from the sum.
 */
export function balanceOf({ sums }: Judged, { named, letters }: { named: number; letters: number }): MinuteBalance {
  const rest = missingOf(sums) - named
  const deleted = Math.max(0, missingLetters(sums) - letters)
  const missing = Math.max(rest, deleted)
  return { missing, deleted, surplus: missing - rest }
}

/** The findings of a minute. `names`: of those who have no outcome. */
export function minuteFindings(
  minute: number,
  { missing, deleted, surplus }: MinuteBalance,
  names: readonly string[] | undefined,
): AuditFinding[] {
  const minuteMs = minute * MINUTE_MS
  const when = `${new Date(minuteMs).toISOString().slice(0, 16)}Z`
  const findings: AuditFinding[] = []
  if (missing > 0) {
    const ids = (names ?? []).slice(0, MOST_IDS)
    const sentence = `${jobs(missing)} of ${when} ${missing === 1 ? 'is' : 'are'} nowhere: ${cause(missing, deleted)}`
    findings.push({ kind: 'missing', minuteMs, count: missing, ids, isRepairable: ids.length > 0, sentence })
  }
  if (surplus > 0) {
    const sentence =
      `${jobs(surplus)} too many of ${when}: more ended than the stream holds; entries were deleted after they had ` +
      'ended, or the group was made again and has run some twice'
    findings.push({ kind: 'surplus', minuteMs, count: surplus, ids: [], isRepairable: false, sentence })
  }
  return findings
}

function cause(count: number, deleted: number): string {
  const acked = 'acked by hand, or pending at a consumer that was deleted'
  if (deleted === 0) return acked
  const letters = `${deleted === 1 ? '1 dead letter was' : `${text(deleted)} dead letters were`} deleted by hand`
  return deleted === count ? letters : `${letters}, the others ${acked}`
}

/** Jobs that workers found gone. */
export function goneFinding(minute: number, count: number): AuditFinding {
  const minuteMs = minute * MINUTE_MS
  const when = `${new Date(minuteMs).toISOString().slice(0, 16)}Z`
  const were = count === 1 ? 'was' : 'were'
  const sentence = `${jobs(count)} of ${when} ${were} deleted while pending, as workers found; nothing of them is left`
  return { kind: 'gone', minuteMs, count, ids: [], isRepairable: false, sentence }
}

function jobs(count: number): string {
  return count === 1 ? '1 job' : `${text(count)} jobs`
}

function text(count: number): string {
  return count.toLocaleString('en-US')
}
