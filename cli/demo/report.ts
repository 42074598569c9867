import { countText, plural, styled, type Style } from '../output.ts'
import type { Fate, Verdict } from './verdict.ts'

/** What the demo tells in the end. */
export interface Report extends Verdict {
  readonly folder: string
  readonly files: number
  readonly leaseMs: number
  readonly processes: number
  /** Null if none was. */
  readonly killedPid: number | null
  /** Jobs that it ran when it was killed. */
  readonly running: number
  readonly seconds: number
}

interface Row {
  readonly name: string
  readonly value: string
  readonly note: string
  readonly style?: Style | undefined
}

/** The table, ready to be written to this stream. */
export function reportLines(report: Report, stream: NodeJS.WriteStream): string[] {
  const rows = rowsOf(report)
  const names = Math.max(...rows.map(({ name }) => name.length))
  const values = Math.max(...rows.map(({ value }) => value.length))
  const lines = rows.map(({ name, value, note, style }) => {
    const padded = value.padStart(values)
    const shown = style === undefined ? padded : styled(stream, style, padded)
    return `  ${name.padEnd(names)}  ${shown}  ${styled(stream, 'dim', note)}`.trimEnd()
  })
  const isGood = report.faults.length === 0
  const last = isGood ? 'Nothing was lost.' : `Failed: ${report.faults.join('; ')}.`
  return ['', ...lines, '', `  ${styled(stream, isGood ? 'green' : 'red', last)}`]
}

function rowsOf(report: Report): Row[] {
  const { fates, runTwice, recovered, running, killedPid, perSecond, processes, seconds } = report
  const bad = (count: number): Style => (count > 0 ? 'red' : 'green')
  return [
    { name: 'files', value: countText(report.files), note: 'one job each' },
    { name: 'verified', value: countText(fates.verified), note: 'hashed again here, and equal', style: 'green' },
    { name: 'lost', value: countText(fates.lost), note: 'jobs without a result', style: bad(fates.lost) },
    ...optionalRows(fates),
    { name: 'run twice', value: countText(runTwice), note: 'jobs whose worker was killed between work and ack' },
    {
      name: 'recovered',
      value: countText(recovered),
      note: `jobs that worker ${killedPid ?? '?'} had when it was killed, ${countText(running)} of them running`,
      style: recovered > 0 ? 'green' : 'red',
    },
    {
      name: 'recovery',
      value: secondsText(report.firstRecoveredMs),
      note: `until the first of them ran elsewhere, ${secondsText(report.lastRecoveredMs)} until the last was done`,
    },
    {
      name: 'speed',
      value: `${countText(perSecond)}/s`,
      note: `jobs on ${plural(processes, 'worker')}; ${seconds.toFixed(1)} s for everything`,
    },
  ]
}

const NOTES: readonly (readonly [Fate, string])[] = [
  ['different', 'another hash than the worker computed'],
  ['changed', 'written to during the demo, so not compared'],
  ['vanished', 'removed during the demo, so not compared'],
  ['unreadable', 'not compared'],
]

/** Rows for what hardly ever happens, only where it did. */
function optionalRows(fates: Readonly<Record<Fate, number>>): Row[] {
  return NOTES.filter(([fate]) => fates[fate] > 0).map(([fate, note]) => {
    return { name: fate, value: countText(fates[fate]), note, style: fate === 'different' ? 'red' : 'yellow' }
  })
}

function secondsText(ms: number | null): string {
  return ms === null ? '-' : `${(ms / 1000).toFixed(1)} s`
}
