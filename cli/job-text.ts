import type { PendingJob, WorkerRow } from '../src/index.ts'
import { spanText } from './output.ts'

/** How pending jobs and workers are told of in a few characters, wherever they are shown. */

/** The name of a pending job, and what is special about its entry. */
export function jobText({ job, isGone, source }: PendingJob): string {
  return `${isGone ? '(gone)' : (job ?? '(no job)')}${source === 'redelivery' ? ' r' : ''}`
}

/** What is left of the lease. */
export function leftText({ leaseLeftMs }: PendingJob): string {
  if (leaseLeftMs === null) return '-'
  return leaseLeftMs === 0 ? 'over' : spanText(leaseLeftMs / 1000)
}

/** How long ago a worker was heard of, and whether that is too long. */
export function seenText({ isAlive, seenAgoMs }: WorkerRow): string {
  const ago = seenAgoMs === null ? '' : spanText(seenAgoMs / 1000)
  return isAlive ? ago : `dead ${ago}`.trimEnd()
}

export function busyText({ isAlive, running, slots }: WorkerRow): string {
  return isAlive ? `${running}/${slots}` : '-'
}
