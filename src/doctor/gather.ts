import type { Asking } from '../asking.ts'
import { RedisError } from '../errors.ts'
import { existingStream, MOST_GROUPS, streamsInUse } from '../existing.ts'
import { readGroups } from '../group-reading.ts'
import { groupWorkers } from '../group-workers.ts'
import { pendingJobs } from '../pending.ts'
import type { Client } from '../redis/connection.ts'
import { countCronAside, readCronDueMs } from '../redis/cron.ts'
import { isToBePublished, readHolds, readLastIdMs, readOldestDeadMs, readServerSeen } from '../redis/diagnosis.ts'
import { readStream } from '../redis/inspection.ts'
import { checkGroupName } from '../redis/keys.ts'
import { readPermissions } from '../redis/permissions.ts'
import { readSettings } from '../redis/settings.ts'
import { readTrim } from '../redis/trimming.ts'
import { DEFAULT_DEAD_AGE_MS } from '../settings.ts'
import { streamStats, type GroupStats } from '../stats.ts'
import { planOf } from '../trim-plan.ts'
import { DEFAULT_RETENTION } from '../trimmer.ts'
import type { CronSeen, Facts, GroupFacts, SoundStream, StreamFacts } from './facts.ts'

/** Looks at all that a doctor judges: bounded, one stream after the other, and nothing is written. */

const MOST_STREAMS = 100
/** Entries without renewal that are counted, of one group. */
const MOST_STUCK = 100
/** Groups of which workers and pending jobs are looked at, in all. */
const MOST_CLOSELY = 500
/** Of a group whose workers have not declared one yet: their default. */
const UNDECLARED_LEASE_MS = 10_000

export async function gatherFacts(asking: Asking, stream: string | undefined): Promise<Facts> {
  const listed = await namesOf(asking, stream).catch(ifForbidden)
  const names = listed ?? (stream === undefined ? [] : [stream])
  const looked = names.slice(0, MOST_STREAMS)
  const server = await asking.run('its settings', readServerSeen)
  const permissions = await asking.run('permissions', (client) => readPermissions(client, looked[0] ?? 'orders'))
  const nowMs = Date.now() + (server.clock?.aheadMs ?? 0)
  const budget = { groups: MOST_CLOSELY }
  const streams: StreamFacts[] = []
  for (const name of looked) streams.push(await lookAt(asking, name, budget))
  const more = names.length > looked.length
  return { nowMs, server, permissions, streams, more, isListForbidden: listed === undefined && stream === undefined }
}

function namesOf(asking: Asking, stream: string | undefined): Promise<string[]> {
  return asking.run('the streams', async (client) => {
    if (stream === undefined) return streamsInUse(client, asking.logger)
    const seen = await readStream(client, stream, 0)
    // With the names of others, and what may have been meant.
    if (seen.kind === 'missing' && !(await isToBePublished(client, stream))) await existingStream(client, stream)
    return [stream]
  })
}

/** A key beside the stream that is of another type must not hide all the others. */
async function lookAt(asking: Asking, stream: string, budget: { groups: number }): Promise<StreamFacts> {
  try {
    return await soundStream(asking, stream, budget)
  } catch (error) {
    if (!(error instanceof Error) || !error.message.includes('WRONGTYPE'))
      return ifForbidden(error) ?? { stream, kind: 'forbidden' }
    return { stream, kind: 'other', found: 'a key of this stream is of another type than millrace writes' }
  }
}

async function soundStream(asking: Asking, stream: string, budget: { groups: number }): Promise<StreamFacts> {
  const looked = await asking.run(`stream ${stream}`, (client) => readAll(client, asking, stream))
  if ('kind' in looked) return looked
  const groups: GroupFacts[] = []
  for (const stats of looked.stats.groups) {
    const leaseMs = looked.leases.get(stats.group) ?? UNDECLARED_LEASE_MS
    const isClose = budget.groups > 0
    if (isClose) budget.groups -= 1
    groups.push(await closely(asking, { stream, stats, leaseMs, isClose }))
  }
  const { stats, trim, deadMaxAgeMs, maxBacklog, lastIdMs, holds, cronDueMs, cronAside } = looked
  const seen = { stats, trim, deadMaxAgeMs, maxBacklog, lastIdMs, holds, cronDueMs, cronAside }
  return { stream, kind: 'stream', ...seen, groups }
}

type Looked = Omit<SoundStream, 'stream' | 'kind' | 'groups'> & { readonly leases: ReadonlyMap<string, number> }

async function readAll(client: Client, asking: Asking, stream: string): Promise<Looked | StreamFacts> {
  const seen = await readStream(client, stream, MOST_GROUPS)
  if (seen.kind === 'missing') {
    const isAwaited = await isToBePublished(client, stream)
    return { stream, kind: 'missing', isAwaited, ...(await readCronSeen(client, stream)) }
  }
  if (seen.kind === 'other') return { stream, kind: 'other', found: `its key holds a ${seen.type}, not a stream` }
  const groups = await readGroups(client, stream, seen, asking.logger)
  const settings = await readSettings(client, stream, [...seen.groups])
  const leases = [...settings.groups].map(([group, told]) => [group, told.get('leaseMs')] as const)
  return {
    stats: streamStats(stream, seen, groups),
    trim: planOf(stream, await readTrim(client, stream, { defaults: DEFAULT_RETENTION })),
    deadMaxAgeMs: settings.stream.get('dead:maxAgeMs') ?? DEFAULT_DEAD_AGE_MS,
    maxBacklog: settings.stream.get('maxBacklog') ?? null,
    lastIdMs: await readLastIdMs(client, stream),
    holds: await readHolds(client, stream),
    ...(await readCronSeen(client, stream)),
    leases: new Map(leases.filter((pair): pair is [string, number] => pair[1] !== undefined)),
  }
}

async function readCronSeen(client: Client, stream: string): Promise<CronSeen> {
  return { cronDueMs: await readCronDueMs(client, stream), cronAside: await countCronAside(client, stream) }
}

async function closely(
  asking: Asking,
  { stream, stats, leaseMs, isClose }: { stream: string; stats: GroupStats; leaseMs: number; isClose: boolean },
): Promise<GroupFacts> {
  const { group, dead, pending, workers } = stats
  const oldestDeadMs =
    dead === 0 ? undefined : await asking.run('dead letters', (client) => readOldestDeadMs(client, stream, group))
  // A group that others made under a name that none of ours can have is told of as far as it goes.
  if (!isClose || workers === 0 || !isGroupName(group)) {
    return { stats, leaseMs, stuck: undefined, workers: [], oldestDeadMs }
  }
  const page = await groupWorkers(asking, stream, group).catch(ifGone)
  const late = pending === 0 ? undefined : await longIdle(asking, stream, group, leaseMs)
  return { stats, leaseMs, stuck: late, workers: page?.workers ?? [], oldestDeadMs }
}

/** What was handed back waits for the next worker, and is nobody's. */
async function longIdle(asking: Asking, stream: string, group: string, leaseMs: number): Promise<GroupFacts['stuck']> {
  const asked = { minIdleMs: 3 * leaseMs, limit: MOST_STUCK }
  const page = await pendingJobs(asking, stream, group, asked).catch(ifGone)
  const late = page?.jobs.filter(({ worker }) => worker !== null) ?? []
  return { jobs: late.length, idleMs: Math.max(0, ...late.map(({ idleMs }) => idleMs)) }
}

/** By the user's permissions: on a command, or in a script on what it calls, in the words of several versions. */
function ifForbidden(error: unknown): undefined {
  const isForbidden = error instanceof RedisError && error.code === 'ERR_REDIS_REFUSED' && FORBIDDEN.test(error.message)
  // Not one that came before the first answer: who is not let in sees nothing at all.
  if (!isForbidden || error.message.includes('refused the connection')) throw error
  return undefined
}

const FORBIDDEN = /NOPERM|can't (run this command|access)|No permissions to access/i

/** Removed in this moment. */
function ifGone(error: unknown): undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined
  if (code !== 'ERR_UNKNOWN_GROUP' && code !== 'ERR_NOT_FOUND') throw error
  return undefined
}

function isGroupName(group: string): boolean {
  try {
    return checkGroupName(group) === group
  } catch {
    return false
  }
}
