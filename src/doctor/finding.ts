/** What a doctor finds. Pure. */

/**
 * `fail`: jobs are lost or refused, now or at the next event that is sure to come. `warn`: somebody should act. `note`: good
 * to know. `unknown`: the server does not let us look.
 */
export type FindingLevel = 'ok' | 'note' | 'warn' | 'fail' | 'unknown'

export type DoctorCheck =
  | 'version'
  | 'mode'
  | 'eviction'
  | 'memory'
  | 'persistence'
  | 'write-errors'
  | 'replicas'
  | 'clock'
  | 'permissions'
  | 'streams'
  | 'retention'
  | 'replay-holds'
  | 'backlog'
  | 'delayed'
  | 'cron'
  | 'paused'
  | 'abandoned'
  | 'no-workers'
  | 'stuck'
  | 'worker-versions'
  | 'dead-letters'
  | 'lag'

/** Absent is the server as a whole. */
export interface FindingPlace {
  readonly stream?: string
  readonly group?: string
}

export interface DoctorFinding {
  readonly check: DoctorCheck
  readonly level: FindingLevel
  readonly where: FindingPlace
  /** What is there. */
  readonly found: string
  /** Why it matters, one sentence; empty where all is well. */
  readonly why: string
  /** A command, or a setting; empty where nothing is to be done. */
  readonly fix: string
}

/** The worst first. */
export const LEVELS: readonly FindingLevel[] = ['fail', 'warn', 'unknown', 'note', 'ok']

export type Problem = Exclude<FindingLevel, 'ok'>

export function fine(check: DoctorCheck, found: string, where: FindingPlace = {}): DoctorFinding {
  return { check, level: 'ok', where, found, why: '', fix: '' }
}

/** As a sentence is built: what is there, why it matters, what to do. */
export function problem(
  [check, level]: readonly [DoctorCheck, Problem],
  { where = {}, ...told }: { where?: FindingPlace; found: string; why: string; fix: string },
): DoctorFinding {
  return { check, level, where, ...told }
}

/** A word of a command line: streams and groups may be of others' making. */
export function shellWord(name: string): string {
  return /^[\w@%+=:,./-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`
}

/** `millrace resume orders main`. */
export function commandText(words: readonly string[]): string {
  return ['millrace', ...words].map(shellWord).join(' ')
}

/** `1 entry`, `2 entries`. */
export function many(count: number, noun: string, nouns = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : nouns}`
}

export function spanText(ms: number): string {
  const minutes = Math.round(ms / 60_000)
  if (minutes < 2) return `${Math.round(ms / 1000)} s`
  if (minutes < 120) return `${minutes} min`
  return minutes < 2880 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} days`
}

export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10))
  return `${Number((bytes / 1024 ** power).toFixed(1))} ${units[power] ?? ''}`
}
