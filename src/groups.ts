import type { Asking } from './asking.ts'
import { MillraceError, OptionError, RedisError, UnknownGroupError } from './errors.ts'
import { existingStream, otherType } from './existing.ts'
import { MOST_WORKERS, PRESENT_MS, readGroups } from './group-reading.ts'
import { didYouMean, oneOf, refuseUnknownKeys, wholeNumber } from './options.ts'
import type { Client } from './redis/connection.ts'
import { destroyGroup, isRecorded, makeGroup } from './redis/groups.ts'
import { readGroup } from './redis/inspection.ts'
import { checkGroupName, checkStreamName } from './redis/keys.ts'
import { listStream } from './redis/stream.ts'
import { rewindGroup, type RewindResult } from './rewind/rewind.ts'
import type { RewindOptions } from './rewind/asked.ts'
import { DELIVERIES, LEASE_MS } from './settings.ts'
import { groupStats, type GroupStats } from './stats.ts'

export interface CreateGroupOptions {
  /** Whether the group sees what the stream holds already, or only what is published from now on. */
  startAt: 'oldest' | 'now'
  /** 500 ms to 24 h. @default what its first worker is told */
  leaseMs?: number
  /** 1 to 1000. @default what its first worker is told */
  maxDeliveries?: number
}

/** What a group has that its removal abandons. */
export interface GroupRemoval {
  readonly stream: string
  readonly group: string
  /** Entries not yet delivered; null where Redis does not know. */
  readonly lag: number | null
  readonly pending: number
  /** Part of lag and pending that no other group sees: it waits in the group's redelivery stream. */
  readonly redelivery: number | null
  /** Retries that wait. */
  readonly scheduled: number
  readonly dead: number
  /** Workers that were heard of in the last 5 seconds: while there is one, the removal must be forced. */
  readonly workers: number
  readonly lastSeenMs: number | null
  /** Whether the stream has no other group: then nobody reads it, and it is not trimmed any more. */
  readonly isLastGroup: boolean
}

/** The groups of a stream: how they stand, a new one, and the end of one. */
export class Groups {
  readonly #asking: Asking

  constructor(asking: Asking) {
    this.#asking = asking
  }

  /** How each group stands, by name, at most 200. @throws MillraceError ERR_NOT_FOUND if there is no such stream; RedisError. */
  async list(stream: string): Promise<GroupStats[]> {
    checkStreamName(stream)
    return this.#asking.run(`the groups of ${stream}`, async (client) =>
      readGroups(client, stream, await existingStream(client, stream), this.#asking.logger),
    )
  }

  /**
   * Makes a group before it has workers, so that nothing is missed until they start. The stream need not exist yet.
   * @throws OptionError, also if the group exists already: nothing was changed then; RedisError.
   */
  async create(stream: string, group: string, options: CreateGroupOptions): Promise<void> {
    checkStreamName(stream)
    checkGroupName(group)
    const wanted = checkCreate(options)
    const made = await this.#asking.run(`a new group ${group} of ${stream}`, async (client) => {
      const found = await makeGroup(client, stream, group, wanted)
      if (found.how === 'created') await listStream(client, stream)
      return found
    })
    if (made.how === 'type') throw new RedisError('ERR_REDIS_REFUSED', otherType(stream, made.type))
    if (made.how === 'exists')
      throw new OptionError(`stream ${stream} has a group ${group} already; nothing was changed`)
  }

  /**
   * What the removal of a group would abandon. Removes nothing.
   * @throws UnknownGroupError; MillraceError ERR_NOT_FOUND if there is no such stream; RedisError.
   */
  async removal(stream: string, group: string): Promise<GroupRemoval> {
    checkStreamName(stream)
    checkGroupName(group)
    return this.#asking.run(`group ${group} of ${stream}`, (client) => removalOf(client, stream, group))
  }

  /**
   * Removes a group with its redelivery stream, retries, dead letters, settings and counts. The stream and its other groups
   * are not touched. From then on its name is unknown: a worker must say where it starts.
   * @returns what it had when it was looked at, right before.
   * A worker that still runs makes the group anew, from what is published after the removal on: `force` is for workers that hang.
   * @throws MillraceError ERR_WORKERS_ALIVE while one of its workers was heard of in the last 5 s, unless `force`; nothing
   * was removed then; else as `removal`.
   */
  async remove(stream: string, group: string, options: { force?: boolean } = {}): Promise<GroupRemoval> {
    refuseUnknownKeys('remove', options, ['force'])
    const plan = await this.removal(stream, group)
    const removed = await this.#asking.run(`the removal of group ${group}`, (client) =>
      destroyGroup(client, stream, group, { presentMs: PRESENT_MS, force: options.force === true }),
    )
    if (removed.how === 'alive') {
      throw new MillraceError(
        'ERR_WORKERS_ALIVE',
        `group ${group} of ${stream} has ${removed.workers} live ${removed.workers === 1 ? 'worker' : 'workers'}; ` +
          'stop them first, or use `force`; nothing was removed',
      )
    }
    return plan
  }

  /**
   * Sets a group back to a point of the stream's history: everything from there on is delivered to it again, in order, and its
   * lag stays known. Without `execute` it only tells how many jobs that would be. Other groups see nothing of it. Asked again
   * before the group has read on, it finds that nothing is left to be done.
   * Handlers run again for jobs that completed. What the group sees again anyway (retries, what was redriven or replayed) is
   * not touched, and runs too.
   * @throws OptionError for a point ahead of where the group is: a rewind skips nothing; MillraceError ERR_HISTORY for one
   * before the stream's history begins, ERR_WORKERS_ALIVE while one of its workers was heard of in the last 5 s, unless
   * `force`, ERR_PENDING if more than 500 jobs of the range are pending, ERR_NOT_FOUND if there is no such stream;
   * UnknownGroupError; RedisError. Nothing was changed in these cases, but after a RedisError of an `execute`: ask again.
   */
  async rewind(stream: string, group: string, options: RewindOptions): Promise<RewindResult> {
    return rewindGroup(this.#asking, { stream, group }, options)
  }
}

function checkCreate(options: CreateGroupOptions): {
  startAt: 'oldest' | 'now'
  leaseMs: number | undefined
  maxDeliveries: number | undefined
} {
  refuseUnknownKeys('create', options, ['startAt', 'leaseMs', 'maxDeliveries'])
  const { leaseMs, maxDeliveries } = options
  const startAt = oneOf('startAt', options.startAt, ['oldest', 'now'])
  if (startAt === undefined)
    throw new OptionError("expected `startAt` to say where the group starts: 'oldest' or 'now'")
  return {
    startAt,
    leaseMs: leaseMs === undefined ? undefined : wholeNumber('leaseMs', leaseMs, { or: 0, ...LEASE_MS }),
    maxDeliveries:
      maxDeliveries === undefined ? undefined : wholeNumber('maxDeliveries', maxDeliveries, { or: 0, ...DELIVERIES }),
  }
}

/** A group that the stream lost, but that its settings still tell of, can be removed too: a worker would make it again. */
async function removalOf(client: Client, stream: string, group: string): Promise<GroupRemoval> {
  const { nowMs, groups, more } = await existingStream(client, stream)
  const asked = { nowMs, presentMs: PRESENT_MS, mostWorkers: MOST_WORKERS, evenIfGone: true }
  const isThere = groups.includes(group) || more
  if (!isThere && !(await isRecorded(client, stream, group))) {
    throw new UnknownGroupError({ stream, group, groups }, didYouMean(group, groups))
  }
  const seen = await readGroup(client, stream, group, asked)
  if (seen === undefined) throw new UnknownGroupError({ stream, group, groups }, didYouMean(group, groups))
  const { lag, pending, redelivery, scheduled, dead, workers, lastSeenMs } = groupStats(group, seen)
  const isLastGroup = groups.every((name) => name === group)
  return { stream, group, lag, pending, redelivery, scheduled, dead, workers, lastSeenMs, isLastGroup }
}
