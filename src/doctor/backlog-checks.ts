import { isGroupName } from '../existing.ts'
import type { GroupFacts, SoundStream } from './facts.ts'
import { commandText, many, problem, type DoctorFinding } from './finding.ts'

/** What is found of a stream's maxBacklog. Pure. */

const HELD = 'Its producers wait or are refused'

/** Of a stream that nobody reads, the bound counts the entries. */
export function ungroupedFindings({ stream, stats, maxBacklog }: SoundStream): DoctorFinding[] {
  if (maxBacklog === null || stats.groups.length > 0 || stats.entries < maxBacklog) return []
  return [
    problem(['backlog', 'fail'], {
      where: { stream },
      found: `${many(stats.entries, 'entry', 'entries')}, its maxBacklog is ${maxBacklog}, and no group`,
      why: `${HELD}, and nobody settles what is there.`,
      fix: `start a worker for it, or ${raise(stream)}`,
    }),
  ]
}

export function backlogFindings(
  { stream, stats: { paused }, maxBacklog }: SoundStream,
  of: GroupFacts,
): DoctorFinding[] {
  const { stats } = of
  // What the bound counts: what is in the stream, without what the group alone sees again.
  const jobs = stats.pins === null ? 0 : stats.pins.entries
  if (maxBacklog === null) return []
  if (jobs === null) return [unknown(stream, stats.group, maxBacklog)]
  if (jobs < maxBacklog) return []
  const isPaused = paused !== null || stats.paused !== null
  const isStuck = stats.workers === 0 && !isPaused
  return [
    problem(['backlog', isStuck ? 'fail' : 'warn'], {
      where: { stream, group: stats.group },
      found: `${many(jobs, 'job')} before it, and the maxBacklog is ${maxBacklog}${stateText(isPaused, stats.workers)}`,
      why: `${HELD} until this group has settled some.`,
      fix: `${fixText(stream, of, paused !== null)}; or ${raise(stream)}`,
    }),
  ]
}

function unknown(stream: string, group: string, maxBacklog: number): DoctorFinding {
  return problem(['backlog', 'warn'], {
    where: { stream, group },
    found: `the maxBacklog of ${maxBacklog} does not hold: how many jobs it has not read is not known`,
    why: 'What Redis does not know stops no producer, so that the stream may grow beyond its bound.',
    fix: 'let its workers read to the end of the stream, and delete no unread entries; before 7.0 Redis never knows',
  })
}

function stateText(isPaused: boolean, workers: number): string {
  if (isPaused) return '; it is paused'
  return workers === 0 ? '; it has no worker' : ''
}

function fixText(stream: string, { stats }: GroupFacts, isStreamPaused: boolean): string {
  const { group, paused, workers, abandoned } = stats
  if (isStreamPaused) return commandText(['resume', stream])
  if (paused !== null) return commandText(['resume', stream, group])
  if (workers > 0) return 'add workers'
  const remove = isGroupName(group) ? `: ${commandText(['groups', 'remove', stream, group])}` : ''
  return abandoned ? `start its workers, or remove it${remove}` : 'start its workers'
}

function raise(stream: string): string {
  return `raise the bound: ${commandText(['settings', stream])} backlog.max=…`
}
