import type { LedgerCounts } from '../../test/helpers/publish-ledger.ts'
import type { SoakOptions } from './options.ts'

/** What came out of a run. */
export interface SoakReport {
  readonly elapsedMs: number
  readonly counts: Readonly<LedgerCounts>
  readonly lanes: number
  readonly checks: number
  /** How often each fault was made. */
  readonly faults: ReadonlyMap<string, number>
  readonly peakRssMib: number
  /** Heap at each judgement, when nothing waits. */
  readonly restMib: readonly number[]
  readonly violated: number
  readonly violations: readonly string[]
  /** What was done to Redis last, with the time since the beginning. */
  readonly lastFaults: readonly string[]
}

export function textOf(report: SoakReport, { seed, forMs }: SoakOptions): string {
  const { counts, elapsedMs, faults } = report
  const seconds = elapsedMs / 1000
  const made = [...faults.values()].reduce((sum, count) => sum + count, 0)
  const lines = [
    `seed ${seed}, ${seconds.toFixed(0)} s, ${report.lanes} producers one after another and beside each other, judged ${report.checks} times`,
    `${counts.pushed} jobs published, ${Math.round(counts.pushed / seconds)}/s`,
    `${counts.in} resolved, ${counts.no} 'no', ${counts.unknown} 'unknown' (${counts.unknownFound} of them in Redis), ${counts.found} entries`,
    `${made} faults`,
    ...[...faults].sort(([, a], [, b]) => b - a).map(([name, count]) => `  ${String(count).padStart(5)}  ${name}`),
    `peak RSS ${report.peakRssMib} MiB; heap with nothing waiting ${Math.min(...report.restMib)} to ${Math.max(...report.restMib)} MiB`,
  ]
  if (report.violated === 0) return `${lines.join('\n')}\nevery promise was kept\n`
  const broken = [
    `BROKEN: ${report.violated} times`,
    ...report.violations.map((what) => `  ${what}`),
    'what was done last:',
    ...report.lastFaults.map((what) => `  ${what}`),
    `again: npm run soak:publish -- --seed ${seed} --seconds ${forMs / 1000}`,
  ]
  return `${[...lines, ...broken].join('\n')}\n`
}
