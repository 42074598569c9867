import { isGroupName } from '../existing.ts'
import { backlogFindings } from './backlog-checks.ts'
import type { Facts, GroupFacts, SoundStream } from './facts.ts'
import { commandText, many, problem, shellWord, spanText, type DoctorFinding } from './finding.ts'

/** What is found of each group. Pure. */

const DAY_MS = 86_400_000
/** Dead letters older than this part of what they are kept for are about to be lost. */
const NEAR_END = 0.7

export function groupFindings(seen: SoundStream, group: GroupFacts, facts: Facts): DoctorFinding[] {
  const at: Place = { seen, group, facts, where: { stream: seen.stream, group: group.stats.group } }
  return [
    ...workerFindings(at),
    ...backlogFindings(seen, group),
    ...stuckFindings(at),
    ...retryFindings(at),
    ...pauseFindings(at),
    ...deadFindings(at),
    ...versionFindings(at),
    ...lagFindings(at),
  ]
}

interface Place {
  readonly seen: SoundStream
  readonly group: GroupFacts
  readonly facts: Facts
  readonly where: { readonly stream: string; readonly group: string }
}

function workerFindings({ group: { stats }, where, facts, seen }: Place): DoctorFinding[] {
  const { stream, group } = where
  if (stats.abandoned) {
    const heard =
      stats.lastSeenMs === null
        ? 'it has never had a worker'
        : `no worker for ${spanText(facts.nowMs - stats.lastSeenMs)}`
    return [
      problem(['abandoned', 'warn'], {
        where,
        found: `${heard}${stats.pins === null ? '' : `; it pins what the stream holds since ${spanText(stats.pins.seconds * 1000)} ago`}`,
        why: 'What it has not settled is never trimmed, so that the stream grows until Redis is out of memory.',
        fix: isGroupName(group)
          ? `start its workers, or remove it: ${commandText(['groups', 'remove', stream, group])}`
          : destroyText(stream, group),
      }),
    ]
  }
  const isPaused = stats.paused !== null || seen.stats.paused !== null
  const waits = (stats.lag ?? (stats.lagSeconds > 0 ? 1 : 0)) + stats.pending
  if (stats.workers > 0 || isPaused || (waits === 0 && stats.overdueSeconds === 0)) return []
  return [
    problem(['no-workers', 'warn'], {
      where,
      found: `no worker, and ${stats.lag === null ? 'an unknown number of jobs' : many(stats.lag, 'job')} unread, ${stats.pending} pending`,
      ...(isGroupName(group)
        ? {
            why: 'Nothing happens to these jobs until a worker starts.',
            fix: commandText(['worker', 'handlers.ts', '--stream', stream, '--group', group]),
          }
        : {
            why: 'No worker joins a group of such a name, and what it has not settled is never trimmed.',
            fix: destroyText(stream, group),
          }),
    }),
  ]
}

/** Of a group that is not millrace's own. A name that cannot be typed as it is shown is in no command. */
function destroyText(stream: string, group: string): string {
  const canBeTyped = /^[ -~]{1,100}$/.test(group)
  return canBeTyped
    ? `if nobody needs it: redis-cli XGROUP DESTROY ${shellWord(stream)} ${shellWord(group)}`
    : 'if nobody needs it, remove it by XGROUP DESTROY'
}

/** Where there are no workers at all, that is what is wrong. */
function stuckFindings({ group: { stats, stuck }, where }: Place): DoctorFinding[] {
  if (stuck === undefined || stuck.jobs === 0 || stats.workers === 0) return []
  return [
    problem(['stuck', 'warn'], {
      where,
      found: `${many(stuck.jobs, 'pending job')}${stuck.jobs === 100 ? ' or more' : ''} that nobody has renewed for up to ${spanText(stuck.idleMs)}`,
      why: 'Their lease is long over: workers should have claimed them, and do not.',
      fix: `${commandText(['pending', where.stream, where.group, '--idle', '30s'])}; restart workers that hold them`,
    }),
  ]
}

function retryFindings({ group: { stats }, where }: Place): DoctorFinding[] {
  const { stream, group } = where
  return [
    ...(stats.overdueSeconds > 60
      ? [
          problem(['delayed', 'warn'], {
            where,
            found: `retries are overdue, the oldest by ${spanText(stats.overdueSeconds * 1000)}`,
            why: 'Workers of the group bring them back when they are due: none of them does.',
            fix: `start a worker of the group; ${commandText(['workers', stream, group])} tells who is there`,
          }),
        ]
      : []),
    ...(stats.setAside > 0
      ? [
          problem(['delayed', 'warn'], {
            where,
            found: `${many(stats.setAside, 'retry', 'retries')} could not be moved when due`,
            why: 'They wait for somebody to look at them, and are not tried again.',
            fix: commandText(['scheduled', 'list', stream, '--group', group]),
          }),
        ]
      : []),
  ]
}

function pauseFindings({ group: { stats }, where, facts }: Place): DoctorFinding[] {
  if (stats.paused === null) return []
  const ms = facts.nowMs - stats.paused.sinceMs
  return [
    problem(['paused', ms > DAY_MS ? 'warn' : 'note'], {
      where,
      found: `it has been paused for ${spanText(ms)}`,
      why: 'It begins no jobs, and what it has not settled is kept.',
      fix: commandText(['resume', where.stream, where.group]),
    }),
  ]
}

function deadFindings({ group: { stats, oldestDeadMs }, where, facts, seen }: Place): DoctorFinding[] {
  if (stats.dead === 0) return []
  const ageMs = oldestDeadMs === undefined ? 0 : Math.max(0, facts.nowMs - oldestDeadMs)
  const keptMs = seen.deadMaxAgeMs
  const isNearEnd = keptMs !== null && ageMs > keptMs * NEAR_END
  return [
    problem(['dead-letters', isNearEnd ? 'warn' : 'note'], {
      where,
      found: `${many(stats.dead, 'dead letter')}, the oldest of ${spanText(ageMs)} ago`,
      why:
        keptMs === null
          ? 'They are jobs that were not done.'
          : `They are jobs that were not done, and are discarded when they are ${spanText(keptMs)} old.`,
      fix: `${commandText(['dead', 'list', where.stream, where.group, '--by-error'])}, then redrive or purge`,
    }),
  ]
}

function versionFindings({ group: { workers }, where }: Place): DoctorFinding[] {
  const alive = workers.filter(({ isAlive, version }) => isAlive && version !== null)
  const versions = [...new Set(alive.map(({ version }) => version ?? ''))].sort()
  if (versions.length < 2) return []
  return [
    problem(['worker-versions', 'note'], {
      where,
      found: `its workers are of different versions of millrace: ${versions.slice(0, 5).join(', ')}`,
      why: 'That is how it is in the middle of a deploy, and a deploy that has stuck looks the same.',
      fix: `${commandText(['workers', where.stream, where.group])} tells which; restart the old ones`,
    }),
  ]
}

function lagFindings({ group: { stats }, where }: Place): DoctorFinding[] {
  if (stats.lag !== null) return []
  return [
    problem(['lag', 'note'], {
      where,
      found: 'how many jobs it has not read is not known',
      why: 'Redis loses count when unread entries are deleted, or is older than 7.0; lag in seconds is known all the same.',
      fix: 'none needed: it is known again when the group has read to the end of the stream',
    }),
  ]
}
