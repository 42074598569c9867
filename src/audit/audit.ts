import { askAgain } from '../ask-again.ts'
import type { Asking } from '../asking.ts'
import { balanceOf, goneFinding, minuteFindings, namedFinding, namedIn, type AuditFinding } from './findings.ts'
import type { AuditScope } from './gather.ts'
import { judge, type Judged, type Patience } from './judge.ts'
import { accountedOf, countsOf, expectedOf, totalsOf, type AuditCounts } from './minutes.ts'
import type { AuditMinute } from './minutes.ts'
import { findOrphans, nameOf, type OrphanKind } from './orphans.ts'
import { minuteRange, scopeOf } from './range.ts'
import { repair, type AuditRepair } from './repair.ts'
import { sleep } from '../clock.ts'
import { OptionError } from '../errors.ts'
import { refuseUnknownKeys, shown } from '../options.ts'
import type { Range } from '../range.ts'
import { MINUTE_MS } from '../redis/auditing.ts'
import { checkGroupName, checkStreamName } from '../redis/keys.ts'
import type { Ask } from '../scan.ts'

export interface AuditOptions extends Range {
  /** The group whose jobs are accounted for: each has its own. */
  readonly group: string
  /** Whether to hand back what is nowhere and can be named. Without `execute` it is only told what would be. @default false */
  readonly repair?: boolean
  /** With `repair`: do it. @default false */
  readonly execute?: boolean
  /** Ends the audit with an error. What was handed back until then stays so. */
  readonly signal?: AbortSignal
  /** Told how many entries were looked at so far. */
  readonly onProgress?: (entries: number) => void
}

export interface AuditResult {
  readonly stream: string
  readonly group: string
  /** Whole minutes: the first begins at `fromMs`, the last ends before `toMs`. None where they are the same. */
  readonly fromMs: number
  readonly toMs: number
  /** Whether nothing was found: every job of the range is accounted for, but for minutes that are `moving` or `unknown`. */
  readonly ok: boolean
  /** Whether the group records outcomes now: then what is missing can be named. */
  readonly isRecording: boolean
  /** What was to be accounted for, and where it is. */
  readonly expected: number
  readonly accounted: number
  readonly totals: AuditCounts
  /** Delayed publishes of the range that wait for their time and are in no group yet. */
  readonly delayed: number
  /** Minutes that have jobs, oldest first. */
  readonly minutes: readonly AuditMinute[]
  readonly findings: readonly AuditFinding[]
  /** Null where no repair was asked for. */
  readonly repair: AuditRepair | null
}

const PATIENCE: Patience = { tries: 4, wait: (tried) => sleep(300 * (tried + 1)) }

/** Accounts for every job of a range; see `Inspector.audit`. */
export async function auditStream(
  asking: Asking,
  stream: string,
  options: AuditOptions,
  patience: Patience = PATIENCE,
): Promise<AuditResult> {
  checkStreamName(stream)
  const minutes = checkOptions(options)
  const { group, signal, onProgress } = options
  const ask: Ask = (question) => askAgain(asking, { what: `an audit of ${stream}`, signal }, question)
  const { scope, isRecording } = await ask((client) => scopeOf(client, { stream, group }, minutes))
  let entries = 0
  const onEntries = (count: number) => onProgress?.((entries += count))
  const { minutes: judged, gathered } = await judge(ask, scope, { watching: { signal, onEntries }, patience })
  const { orphans, delayed } = await findOrphans(ask, scope, signal)
  const byId = [...orphans].map(([kind, ids]) => namedFinding(kind, ids))
  if (gathered.lost.size > 0) byId.push(namedFinding('pending-without-entry', gathered.lost))
  const found = await findInMinutes(ask, scope, { judged, orphans, isRecording, signal })
  const rows = [...judged].sort(([a], [b]) => a - b).map(([minute, one]) => rowOf(minute, one, found.minutes))
  const findings = [...byId, ...found.findings]
  const wanted = options.repair === true ? { orphans, entries: found.entries, execute: options.execute === true } : null
  return {
    ...{ stream, group, fromMs: scope.low * MINUTE_MS, toMs: Math.max(scope.low, scope.high + 1) * MINUTE_MS },
    ...{ ok: findings.length === 0, isRecording },
    expected: rows.reduce((sum, { expected }) => sum + expected, 0),
    accounted: rows.reduce((sum, { accounted }) => sum + accounted, 0),
    ...{ totals: totalsOf(rows), delayed, minutes: rows, findings },
    repair: wanted === null ? null : await repair(ask, scope, wanted),
  }
}

function checkOptions(options: AuditOptions): ReturnType<typeof minuteRange> {
  refuseUnknownKeys('audit', options, ['group', 'from', 'to', 'repair', 'execute', 'signal', 'onProgress'])
  checkGroupName(options.group)
  for (const name of ['repair', 'execute'] as const) {
    const value: unknown = options[name]
    if (value !== undefined && typeof value !== 'boolean') {
      throw new OptionError(`expected \`${name}\` to be true or false, got ${shown(value)}`)
    }
  }
  return minuteRange(options)
}

/**
 * What does not add up, minute by minute, beyond what is told by id. Jobs that outcomes name become orphans, with their entries.
 */
async function findInMinutes(
  ask: Ask,
  scope: AuditScope,
  {
    judged,
    orphans,
    isRecording,
    signal,
  }: {
    judged: ReadonlyMap<number, Judged>
    orphans: Map<OrphanKind, Set<string>>
    isRecording: boolean
    signal: AbortSignal | undefined
  },
): Promise<{ findings: AuditFinding[]; entries: Map<string, string>; minutes: Set<number> }> {
  const findings: AuditFinding[] = []
  const minutes = new Set<number>()
  const entries = new Map<string, string>()
  const byId = namedIn(orphans)
  for (const [minute, one] of [...judged].sort(([a], [b]) => a - b)) {
    if (one.sums.gone > 0) findings.push(goneFinding(minute, one.sums.gone))
    // A minute that adds up has a surplus beside what is told by id.
    if (one.state !== 'fault' && (one.state !== 'ok' || !byId.has(minute))) continue
    const { all = new Set<string>(), letters = 0 } = byId.get(minute) ?? {}
    const balance = balanceOf(one, { named: all.size, letters })
    let names: string[] | undefined
    if (balance.missing > 0 && canName(one, isRecording)) {
      const told = await nameOf(ask, scope, { minute, most: balance.missing + all.size, signal })
      const nameless = told?.filter(({ id }) => !all.has(id))
      for (const { id, entryId } of nameless ?? []) entries.set(id, entryId)
      names = nameless?.map(({ id }) => id)
    }
    const told = minuteFindings(minute, balance, names)
    if (told.length > 0) minutes.add(minute)
    findings.push(...told)
  }
  if (entries.size > 0) orphans.set('outcome-missing', new Set(entries.keys()))
  return { findings, entries, minutes }
}

/**
 * Who is nowhere without an outcome is missing only if each that ended has one. Where outcomes were not recorded, or not yet,
 * the count tells: but not beside copies, which may be missing in the place of a job that has ended.
 */
function canName({ sums }: Judged, isRecording: boolean): boolean {
  const hasEnded = sums.completed + sums.cancelled + sums.skipped + sums.discarded > 0
  return !hasEnded || (isRecording && sums.replayed === 0)
}

function rowOf(minute: number, { sums, state: judged }: Judged, faults: ReadonlySet<number>): AuditMinute {
  const counts = countsOf(sums)
  const state = faults.has(minute) ? 'fault' : judged
  return { fromMs: minute * MINUTE_MS, expected: expectedOf(sums), accounted: accountedOf(counts), state, counts }
}
