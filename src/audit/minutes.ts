/**
 * Adding up the jobs of a minute: what the stream says is to be settled, against what was settled and where the rest is. Pure.
 */

/** Where the jobs of a minute are, or how they ended. A job that was set back to run again is there once for each time. */
export interface AuditCounts {
  readonly completed: number
  readonly cancelled: number
  /** Those that the group does not want. */
  readonly skipped: number
  /** Dead letters that were deleted: by an operator, or because they were past their age. */
  readonly discarded: number
  /** Entries that were deleted from the stream while they were pending. */
  readonly gone: number
  readonly dead: number
  /** Retries that wait for their time. */
  readonly scheduled: number
  /** Due retries, redriven and replayed jobs, to be delivered or pending. */
  readonly redelivery: number
  readonly pending: number
  /** Not yet delivered. */
  readonly waiting: number
}

/** All that was gathered of a minute. */
export interface MinuteSums extends AuditCounts {
  /** How often the entries of the stream are to be settled. */
  readonly settlings: number
  readonly replayed: number
  /** What the tally says of dead letters; what is there is `dead`. */
  readonly died: number
  readonly redriven: number
  readonly retried: number
  readonly waited: number
}

/** A minute of publishing, as it adds up. */
export interface AuditMinute {
  /** When it begins, in ms since the epoch. */
  readonly fromMs: number
  /** What is to be accounted for: jobs, and copies that replays brought. */
  readonly expected: number
  readonly accounted: number
  /**
   * `moving`: jobs of it move too fast to be added up; ask again later. `unknown`: it does not add up, but what was counted of
   * it is no longer kept.
   */
  readonly state: 'ok' | 'fault' | 'moving' | 'unknown'
  readonly counts: AuditCounts
}

export const COUNT_NAMES = [
  'completed',
  'cancelled',
  'skipped',
  'discarded',
  'gone',
  'dead',
  'scheduled',
  'redelivery',
  'pending',
  'waiting',
] as const satisfies readonly (keyof AuditCounts)[]

const SUM_NAMES = [...COUNT_NAMES, 'settlings', 'replayed', 'died', 'redriven', 'retried', 'waited'] as const
type SumName = (typeof SUM_NAMES)[number]

const NOTHING = Object.fromEntries(SUM_NAMES.map((name) => [name, 0])) as unknown as MinuteSums

/** Sums by minute, as they are gathered. */
export class Sums {
  readonly #minutes = new Map<number, Record<SumName, number>>()

  add(minute: number, name: SumName, count: number): void {
    if (count === 0) return
    const sums = this.#minutes.get(minute) ?? { ...NOTHING }
    sums[name] += count
    this.#minutes.set(minute, sums)
  }

  get minutes(): number[] {
    return [...this.#minutes.keys()].sort((a, b) => a - b)
  }

  of(minute: number): MinuteSums {
    return this.#minutes.get(minute) ?? NOTHING
  }
}

export function expectedOf(sums: MinuteSums): number {
  return sums.settlings + sums.replayed + sums.gone
}

export function accountedOf(counts: AuditCounts): number {
  return COUNT_NAMES.reduce((sum, name) => sum + counts[name], 0)
}

/** How many jobs of a minute are nowhere; below 0 there are more outcomes than jobs. */
export function missingOf(sums: MinuteSums): number {
  return expectedOf(sums) - accountedOf(sums)
}

/** Dead letters that are not there, though nobody redrove or deleted them by the books. */
export function missingLetters({ died, redriven, discarded, dead }: MinuteSums): number {
  return Math.max(0, died - redriven - discarded - dead)
}

/** Whether two gatherings saw the same of a minute: then no job of it moved between them. */
export function isSame(a: MinuteSums, b: MinuteSums): boolean {
  return SUM_NAMES.every((name) => a[name] === b[name])
}

export function countsOf(sums: MinuteSums): AuditCounts {
  return Object.fromEntries(COUNT_NAMES.map((name) => [name, sums[name]])) as unknown as AuditCounts
}

/** The counts of all minutes together. */
export function totalsOf(minutes: readonly AuditMinute[]): AuditCounts {
  const total = (name: keyof AuditCounts) => minutes.reduce((sum, { counts }) => sum + counts[name], 0)
  return Object.fromEntries(COUNT_NAMES.map((name) => [name, total(name)])) as unknown as AuditCounts
}
