import type { Look } from './hash.ts'
import type { Run } from './results.ts'

/**
 * What the demo's facts mean. Pure: no clock, no files, so that what must make it fail can be tested without a fault.
 */

/** What became of one file: `lost` and `different` are failures of ours, the others after them are the folder's doing. */
export type Fate = 'verified' | 'lost' | 'different' | 'changed' | 'vanished' | 'unreadable'

/** @param now what the file is when the demo looks at it itself, after all jobs are done. */
export function fateOf(runs: readonly Run[], now: Look): Fate {
  if (runs.length === 0) return 'lost'
  const fates = runs.map(({ look }) => compare(look, now))
  return fates.find((fate) => fate !== 'verified') ?? 'verified'
}

function compare(then: Look, now: Look): Fate {
  if ('sha256' in then && 'sha256' in now) {
    if (then.sha256 === now.sha256) return 'verified'
    return then.stamp === now.stamp ? 'different' : 'changed'
  }
  if ('fault' in now) return now.fault === 'ENOENT' ? 'vanished' : 'unreadable'
  // It can be read now. Unless it was away for a moment, the worker should have read it too.
  return 'fault' in then && then.fault === 'ENOENT' ? 'changed' : 'different'
}

/** What happened around the kill. */
export interface Crash {
  readonly pid: number
  readonly killedMs: number
  /** Jobs that were running in the worker when it was killed. */
  readonly heldIds: readonly string[]
}

export interface Facts {
  readonly files: readonly string[]
  readonly runs: ReadonlyMap<string, readonly Run[]>
  readonly fates: ReadonlyMap<string, Fate>
  readonly crash: Crash | undefined
  /** Jobs that ended up as dead letters. */
  readonly dead: number
}

export interface Verdict {
  readonly fates: Readonly<Record<Fate, number>>
  /** Files that were hashed more than once to the end. */
  readonly runTwice: number
  /** Jobs that the killed worker had, and another one ran. */
  readonly recovered: number
  /** Of them, those that were running when it was killed. */
  readonly recoveredRunning: number
  readonly firstRecoveredMs: number | null
  readonly lastRecoveredMs: number | null
  /** Jobs a second, those left out that waited for the lease to be over. */
  readonly perSecond: number
  /** Why this was no success, in words; empty if it was one. */
  readonly faults: readonly string[]
}

export function verdictOf({ files, runs, fates, crash, dead }: Facts): Verdict {
  const counts = { verified: 0, lost: 0, different: 0, changed: 0, vanished: 0, unreadable: 0 }
  for (const file of files) counts[fates.get(file) ?? 'lost'] += 1
  const all = [...runs.values()].flat()
  const recovered = crash === undefined ? [] : all.filter(({ pid, deliveries }) => pid !== crash.pid && deliveries > 1)
  const recoveredIds = new Set(recovered.map(({ id }) => id))
  const recoveredRunning = (crash?.heldIds ?? []).filter((id) => recoveredIds.has(id)).length
  const sinceKill = (times: readonly number[], choose: (...times: number[]) => number) =>
    crash === undefined || times.length === 0 ? null : times.reduce((a, b) => choose(a, b)) - crash.killedMs
  const faults: string[] = []
  if (counts.lost > 0) faults.push(`${counts.lost} of ${files.length} files were lost`)
  if (counts.different > 0) faults.push(`${counts.different} files have another hash than their worker computed`)
  if (dead > 0) faults.push(`${dead} jobs are dead letters`)
  if (crash === undefined) faults.push('no worker was killed')
  else if (recoveredRunning === 0) faults.push('nothing had to be recovered from the killed worker')
  return {
    fates: counts,
    runTwice: [...runs.values()].filter((ofFile) => ofFile.length > 1).length,
    recovered: recoveredIds.size,
    recoveredRunning,
    firstRecoveredMs: sinceKill(
      recovered.map(({ startedMs }) => startedMs),
      Math.min,
    ),
    lastRecoveredMs: sinceKill(
      recovered.map(({ endedMs }) => endedMs),
      Math.max,
    ),
    perSecond: rateOf(all.filter(({ id }) => !recoveredIds.has(id))),
    faults,
  }
}

function rateOf(runs: readonly Run[]): number {
  if (runs.length === 0) return 0
  let [from, to] = [Infinity, -Infinity]
  for (const { startedMs, endedMs } of runs) [from, to] = [Math.min(from, startedMs), Math.max(to, endedMs)]
  return Math.round((runs.length * 1000) / Math.max(1, to - from))
}
