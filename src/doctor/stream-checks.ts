import { STREAMS_KEY } from '../redis/keys.ts'
import { ungroupedFindings } from './backlog-checks.ts'
import type { CronSeen, Facts, SoundStream, StreamFacts } from './facts.ts'
import { bytesText, commandText, fine, many, problem, shellWord, spanText, type DoctorFinding } from './finding.ts'

/** What is found of each stream. Pure. */

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
/** A stream that nobody reads and nothing trims grows: below this it is not worth more than a note. */
const SMALL_BYTES = 64 * 1024 ** 2
/** Trimming is done in passes: a bound is passed by a little at all times. */
const OVER_BOUND = 1.25
/** What is longer is no bound that anybody waits for. */
const LONG_AGE_MS = 400 * DAY_MS

export function streamFindings(seen: StreamFacts, facts: Facts): DoctorFinding[] {
  const where = { stream: seen.stream }
  if (seen.kind === 'missing') {
    if (seen.isAwaited) return cronFindings(seen, facts)
    return [
      problem(['streams', 'note'], {
        where,
        found: 'it is on the list of streams in use, and does not exist',
        why: 'It was deleted, and is looked for by every exporter and console.',
        fix: `redis-cli SREM ${STREAMS_KEY} ${shellWord(seen.stream)}`,
      }),
    ]
  }
  if (seen.kind === 'other') {
    return [
      problem(['streams', 'fail'], {
        where,
        found: seen.found,
        why: 'Nothing can be published to it or read from it.',
        fix: 'find out who writes that key; use another name, or delete it if nobody needs it',
      }),
    ]
  }
  if (seen.kind === 'forbidden') {
    return [
      problem(['streams', 'unknown'], {
        where,
        found: 'this user may not look at it',
        why: 'What is wrong with it does not show here.',
        fix: `run it as a user that may read ${seen.stream} and the keys beside it`,
      }),
    ]
  }
  return [
    ...clockFindings(seen, facts),
    ...retentionFindings(seen, facts),
    ...holdFindings(seen, facts),
    ...ungroupedFindings(seen),
    ...delayedFindings(seen),
    ...cronFindings(seen, facts),
    ...pauseFindings(seen, facts),
  ]
}

function clockFindings({ stream, lastIdMs }: SoundStream, { nowMs }: Facts): DoctorFinding[] {
  const aheadMs = lastIdMs === undefined ? 0 : lastIdMs - nowMs
  if (aheadMs < 5000) return []
  return [
    problem(['clock', aheadMs > 10 * MINUTE_MS ? 'warn' : 'note'], {
      where: { stream },
      found: `its newest id is ${spanText(aheadMs)} ahead of the clock of Redis`,
      why: 'The clock has jumped back, or somebody chose that id: until it is reached all ids have its time, and ages read 0.',
      fix: `wait until then; if it is too long, drain the stream and go on with another one`,
    }),
  ]
}

function retentionFindings(seen: SoundStream, facts: Facts): DoctorFinding[] {
  const { stream, trim, stats } = seen
  const where = { stream }
  const size = trim.bytes === null ? '' : `, ${bytesText(trim.bytes)}`
  if (stats.groups.length === 0) {
    if (trim.entries === 0) return []
    const isLarge = (trim.bytes ?? 0) > SMALL_BYTES || isOlder(seen, facts, DAY_MS)
    return [
      problem(['retention', isLarge ? 'warn' : 'note'], {
        where,
        found: `it has no group and ${many(trim.entries, 'entry', 'entries')}${size}`,
        why: 'Nobody reads it, and what nobody has read is never trimmed.',
        fix: `start a worker for it, or ${commandText(['groups', 'create', stream, 'main', '--start', 'oldest'])}`,
      }),
    ]
  }
  const { maxAgeMs, maxBytes } = trim.bounds
  const isUnbounded = (maxBytes ?? Infinity) > bytesLimit(facts) && (maxAgeMs ?? Infinity) > LONG_AGE_MS
  if (isUnbounded && trim.bounds.maxEntries === null) {
    return [
      problem(['retention', 'warn'], {
        where,
        found: `its retention is without a bound that holds (${many(trim.entries, 'entry', 'entries')}${size})`,
        why: 'It grows until Redis is out of memory.',
        fix: commandText(['settings', stream, 'retention.age=24h', 'retention.bytes=1GiB']),
      }),
    ]
  }
  return pinned(seen)
}

/** Over its bound for want of a group that settles. */
function pinned({ stream, trim }: SoundStream): DoctorFinding[] {
  const { watermark, bytes, bounds } = trim
  const isOver = bounds.maxBytes !== null && bytes !== null && bytes > bounds.maxBytes * OVER_BOUND
  if (!isOver || watermark === null) return []
  const holder = watermark.group === null ? 'a replay' : `group ${watermark.group}`
  return [
    problem(['retention', 'warn'], {
      where: { stream },
      found: `${bytesText(bytes)}, over its bound of ${bytesText(bounds.maxBytes ?? 0)}: ${holder} holds it`,
      why: 'What a group has not settled is kept, whatever the bound.',
      fix: `${commandText(['trim', stream])} tells what holds it`,
    }),
  ]
}

function bytesLimit({ server }: Facts): number {
  const maxMemoryBytes = server.facts?.maxMemoryBytes ?? 0
  return maxMemoryBytes > 0 ? maxMemoryBytes : 1024 ** 4
}

function isOlder({ trim }: SoundStream, { nowMs }: Facts, ageMs: number): boolean {
  return trim.oldestEntryMs !== null && nowMs - trim.oldestEntryMs > ageMs
}

/** One that runs renews its hold all the time. */
function holdFindings({ stream, holds }: SoundStream, { nowMs }: Facts): DoctorFinding[] {
  return holds
    .filter(({ renewedMs, untilMs }) => untilMs > nowMs && nowMs - renewedMs > 10 * MINUTE_MS)
    .map(({ target, id, renewedMs, untilMs }) =>
      problem(['replay-holds', 'warn'], {
        where: { stream },
        found: `replay ${id} into ${target} holds its history and was not run for ${spanText(nowMs - renewedMs)}`,
        why: `Retention keeps what it has not read, for ${spanText(untilMs - nowMs)} more.`,
        fix: `${commandText(['replays', 'resume', target, id])}, or ${commandText(['replays', 'cancel', target, id])}`,
      }),
    )
}

function delayedFindings({ stream, stats }: SoundStream): DoctorFinding[] {
  const where = { stream }
  return [
    ...(stats.overdueSeconds > 60
      ? [
          problem(['delayed', 'warn'], {
            where,
            found: `delayed publishes are overdue, the oldest by ${spanText(stats.overdueSeconds * 1000)}`,
            why: 'Workers move them into the stream when they are due: none of them does.',
            fix: `start a worker of any group of ${stream}`,
          }),
        ]
      : []),
    ...(stats.setAside > 0
      ? [
          problem(['delayed', 'warn'], {
            where,
            found: `${many(stats.setAside, 'delayed publish', 'delayed publishes')} could not be moved when due`,
            why: 'They wait for somebody to look at them, and are not tried again.',
            fix: commandText(['scheduled', 'list', stream]),
          }),
        ]
      : []),
  ]
}

function cronFindings(seen: { readonly stream: string } & CronSeen, { nowMs }: Facts): DoctorFinding[] {
  const { stream, cronDueMs, cronAside } = seen
  const where = { stream }
  const lateMs = cronDueMs === undefined ? 0 : nowMs - cronDueMs
  const list = commandText(['cron', 'list', stream])
  return [
    ...(lateMs >= MINUTE_MS
      ? [
          problem(['cron', 'warn'], {
            where,
            found: `recurring schedules are overdue, the first by ${spanText(lateMs)}`,
            why: 'Workers of the stream fire them: none of them does.',
            fix: `start a worker of any group of ${stream}; ${list} tells which`,
          }),
        ]
      : []),
    ...(cronAside > 0
      ? [
          problem(['cron', 'warn'], {
            where,
            found: `${many(cronAside, 'recurring schedule', 'recurring schedules')} could not be fired: never due until set again`,
            why: 'A worker could not read their times, their zone or their job, and has set them aside.',
            fix: `set them again; ${list} tells which`,
          }),
        ]
      : []),
  ]
}

function pauseFindings({ stream, stats }: SoundStream, { nowMs }: Facts): DoctorFinding[] {
  if (stats.paused === null) return []
  const ms = nowMs - stats.paused.sinceMs
  return [
    problem(['paused', ms > DAY_MS ? 'warn' : 'note'], {
      where: { stream },
      found: `it has been paused for ${spanText(ms)}`,
      why: 'No group begins a job of it.',
      fix: commandText(['resume', stream]),
    }),
  ]
}

/** Of all streams: that they were looked at. */
export function listFindings({ streams, more, isListForbidden }: Facts): DoctorFinding[] {
  if (isListForbidden) {
    return [
      problem(['streams', 'unknown'], {
        found: 'this user may not read the list of streams in use',
        why: 'Without it streams are not found.',
        fix: `name a stream: millrace doctor <stream>; or allow SSCAN on ${STREAMS_KEY}`,
      }),
    ]
  }
  const sound = streams.filter(({ kind }) => kind === 'stream').length
  if (more) {
    return [
      problem(['streams', 'note'], {
        found: `there are more than the ${streams.length} streams that were looked at`,
        why: 'What is wrong with the others does not show here.',
        fix: 'name a stream: millrace doctor <stream>',
      }),
    ]
  }
  return [fine('streams', streams.length === 0 ? 'there are no streams yet' : `${sound} looked at`)]
}
