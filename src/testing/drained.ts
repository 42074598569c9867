import { sleep } from '../clock.ts'
import { MillraceError, OptionError, RedisError } from '../errors.ts'
import { Inspector } from '../inspector.ts'
import { flag, refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import type { RedisOption } from '../redis/target.ts'
import { checkGroupName, checkStreamName } from '../redis/keys.ts'
import type { ScheduledJob, ScheduledJobs } from '../scheduled.ts'
import type { GroupStats, StreamStats } from '../stats.ts'

/** Waits until a real stream is quiet, so that a test looks at what its jobs have done and not at a clock. */
export interface DrainedOptions {
  /** Where Redis is. @default localhost:6379 */
  redis?: RedisOption
  stream: string
  /** The group that is waited for. @default all groups of the stream */
  group?: string
  /** How long, in ms. @default 10000 */
  timeoutMs?: number
  /** Whether jobs that are due later are waited for too: delayed ones, and retries. @default false */
  includeScheduled?: boolean
  /** Ends the wait; it then throws the signal's reason. @default none */
  signal?: AbortSignal
}

const KNOWN = ['redis', 'stream', 'group', 'timeoutMs', 'includeScheduled', 'signal']
const PAUSE_MS = 20

/**
 * Resolves once nothing is left to be done: every entry was delivered and settled, nothing waits to be delivered again, nothing that is
 * scheduled is due. What no group reads, and what is paused, is not done. While Redis is away it goes on waiting.
 * @throws MillraceError ERR_NOT_DRAINED that says what was left when the time was over; OptionError; RedisError if Redis refuses.
 */
export async function drained(options: DrainedOptions): Promise<void> {
  const asked = check(options)
  const inspector = new Inspector({ logger: false, ...(options.redis !== undefined && { redis: options.redis }) })
  const over = new AbortController()
  const end = () => over.abort()
  const timer = setTimeout(end, asked.timeoutMs)
  options.signal?.addEventListener('abort', end, { once: true })
  let left = 'Redis has not answered'
  try {
    const ended = new Promise<undefined>((resolve) => {
      over.signal.addEventListener('abort', () => resolve(undefined), { once: true })
      if (options.signal?.aborted === true) end()
    })
    for (let before: Look | undefined; !over.signal.aborted;) {
      // A look that Redis does not answer must not outlast the time.
      const look: Look | undefined = await Promise.race([lookAt(inspector, asked).catch(notSeen), ended])
      if (look === undefined) break
      if (look.left === '' && before?.left === '' && before.settled === look.settled) return
      if (look.left !== '') left = look.left
      before = look
      await sleep(PAUSE_MS, over.signal)
    }
  } finally {
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', end)
    inspector.close()
  }
  options.signal?.throwIfAborted()
  const { stream, timeoutMs } = asked
  throw new MillraceError('ERR_NOT_DRAINED', `stream ${stream} was not quiet within ${timeoutMs} ms: ${left}`)
}

interface Asked {
  readonly stream: string
  readonly group: string | undefined
  readonly timeoutMs: number
  readonly includeScheduled: boolean
}

function check(options: DrainedOptions): Asked {
  refuseUnknownKeys('drained', options, KNOWN)
  const { group, signal } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError(`expected \`signal\` to be an AbortSignal, got ${shown(signal)}`)
  }
  return {
    stream: checkStreamName(options.stream),
    group: group === undefined ? undefined : checkGroupName(group),
    timeoutMs: wholeNumber('timeoutMs', options.timeoutMs, { or: 10_000, max: 2 ** 31 - 1 }),
    includeScheduled: flag('includeScheduled', options.includeScheduled),
  }
}

/** What is left, for people; nothing if it is quiet. */
interface Look {
  readonly left: string
  /**
   * What was settled so far. A look is several questions, and a job may go from what is asked later to what was asked before:
   * but not twice without being settled in between, so two quiet looks with nothing settled between them missed none.
   */
  readonly settled: string
}

/** Redis may be away for a moment, also since the test has it so: what is left then is to see it again. */
function notSeen(error: unknown): Look {
  if (error instanceof RedisError && error.code === 'ERR_REDIS_UNREACHABLE') return { left: error.message, settled: '' }
  throw error
}

async function lookAt(inspector: Inspector, { stream, group, includeScheduled }: Asked): Promise<Look> {
  const stats = await statsOf(inspector, stream)
  const groups = (stats?.groups ?? []).filter((one) => group === undefined || one.group === group)
  const scheduled = await scheduledLeft(inspector, { stream, group, includeScheduled })
  const left = [
    ...(stats === undefined ? ['there is no such stream'] : streamLeft(stats, groups, group)),
    ...groups.flatMap((one) => groupLeft(one)),
    ...scheduled,
  ]
  return { left: left.join('; '), settled: JSON.stringify(groups.map(({ lastHour, dead }) => [lastHour, dead])) }
}

/** A stream that nothing was published to yet may come. */
async function statsOf(inspector: Inspector, stream: string): Promise<StreamStats | undefined> {
  try {
    const [stats] = await inspector.stats(stream)
    return stats
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'ERR_NOT_FOUND') return undefined
    throw error
  }
}

function streamLeft({ paused }: StreamStats, groups: readonly GroupStats[], group: string | undefined): string[] {
  if (groups.length === 0) return [group === undefined ? 'no group reads it' : `it has no group ${group}`]
  return paused === null || !groups.some((one) => groupLeft(one).length > 0) ? [] : ['the stream is paused']
}

function groupLeft({ group, lag, lagSeconds, pending, handedBack, paused, workers }: GroupStats): string[] {
  const isRead = lag === null ? lagSeconds === 0 : lag === 0
  if (isRead && pending === 0) return []
  const parts = [
    ...(isRead ? [] : [`${lag ?? 'an unknown number of jobs'} not yet delivered`]),
    ...(pending === 0 ? [] : [`${pending} pending`]),
    ...(handedBack === 0 ? [] : [`${handedBack} of them handed back`]),
    ...(paused === null ? [] : ['it is paused']),
    ...(workers > 0 ? [] : ['it has no worker']),
  ]
  return [`group ${group}: ${parts.join(', ')}`]
}

async function scheduledLeft(
  inspector: Inspector,
  { stream, group, includeScheduled }: Omit<Asked, 'timeoutMs'>,
): Promise<string[]> {
  // Delayed publishes go to every group.
  const isOurs = ({ group: place }: ScheduledJob) => group === undefined || place === null || place === group
  for (let after: string | undefined; ;) {
    const { nowMs, jobs, next } = await scheduledPage(inspector, stream, after)
    const isDue = ({ dueMs }: ScheduledJob) => dueMs !== null && dueMs <= nowMs
    const left = jobs.filter((job) => isOurs(job) && (includeScheduled || isDue(job)))
    const last = jobs.at(-1)
    const isOver = next === null || last === undefined || !(includeScheduled || isDue(last))
    if (left.length === 0 && isOver) return []
    if (left.length > 0) return [scheduledText(left, left.filter(isDue).length, next === null)]
    after = next ?? undefined
  }
}

async function scheduledPage(inspector: Inspector, stream: string, after: string | undefined): Promise<ScheduledJobs> {
  try {
    return await inspector.scheduled.list(stream, { limit: 1000, ...(after !== undefined && { after }) })
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'ERR_NOT_FOUND') return { nowMs: 0, jobs: [], next: null }
    throw error
  }
}

function scheduledText(left: readonly ScheduledJob[], due: number, isAll: boolean): string {
  const aside = left.filter(({ dueMs }) => dueMs === null).length
  const parts = [...(due === 0 ? [] : [`${due} of them due`]), ...(aside === 0 ? [] : [`${aside} of them set aside`])]
  return [`${left.length}${isAll ? '' : ' or more'} scheduled`, ...parts].join(', ')
}
