import { Asking } from './asking.ts'
import { auditStream, type AuditOptions, type AuditResult } from './audit/audit.ts'
import { cancelJob, checkJobAsked, type CancelOptions, type CancelResult } from './cancel.ts'
import { CronSchedules } from './cron/schedules.ts'
import { DeadLetters } from './dead/letters.ts'
import { diagnose, type Diagnosis, type DoctorOptions } from './doctor/doctor.ts'
import { checkExplain, explainJob, type ExplainOptions } from './explain/explain.ts'
import type { Explanation } from './explain/explanation.ts'
import { existingStream, MOST_GROUPS, otherType, streamsInUse } from './existing.ts'
import { checkFind, findJobs, type Found, type FindOptions } from './find.ts'
import { readGroups } from './group-reading.ts'
import { groupWorkers, type WorkersPage } from './group-workers.ts'
import { Groups } from './groups.ts'
import { groupHistory, type GroupHistory, type HistoryOptions } from './history.ts'
import type { Logger } from './logger.ts'
import { refuseUnknownKeys } from './options.ts'
import { pendingJobs, type PendingOptions, type PendingPage } from './pending.ts'
import type { Client } from './redis/connection.ts'
import { pauseStream, resumeStream, type PauseOptions, type PauseResult, type ResumeResult } from './pauses.ts'
import { faultText } from './redis/faults.ts'
import type { RedisOption } from './redis/target.ts'
import { readStream, type StreamSeen } from './redis/inspection.ts'
import { checkStreamName } from './redis/keys.ts'
import { Replays } from './replay/replays.ts'
import { lookAtResult, type JobResult, type ResultLookOptions } from './results/inspected.ts'
import { Scheduled } from './scheduled.ts'
import { Settings } from './settings.ts'
import { streamStats, type StreamStats } from './stats.ts'
import { tailStream, type TailEntry, type TailOptions } from './tail.ts'
import { trimStream, type TrimOptions, type TrimResult } from './trims.ts'

export interface InspectorOptions {
  /** Where Redis is: a URL, ioredis options, or an ioredis instance, which is only read for its options. @default localhost:6379 */
  redis?: RedisOption
  /** pino, or anything of its shape; `false` is silence. @default warnings and errors to stderr */
  logger?: Logger | false
}

/** Streams that are looked at together. */
const AT_ONCE = 20

/**
 * Looks at streams and groups, and repairs them. Looking creates nothing and writes nothing. Connects at the first call; an
 * idle inspector does not keep the process running. While Redis is away every call fails within 5 s, and a later one works again.
 * @throws OptionError at construction, on an unknown or impossible option.
 */
export class Inspector {
  /** Delayed publishes, and retries that wait for their time. */
  readonly scheduled: Scheduled
  /** Jobs that are published again and again. */
  readonly cron: CronSchedules
  /** The dead letters of a group. */
  readonly dead: DeadLetters
  /** The groups of a stream: how they stand, making one, removing one. */
  readonly groups: Groups
  /** What the workers of a stream follow: retention, leases, deliveries. */
  readonly settings: Settings
  /** Jobs out of the history, once more for a group or into another stream. */
  readonly replays: Replays
  readonly #asking: Asking

  constructor(options: InspectorOptions = {}) {
    refuseUnknownKeys('Inspector', options, ['redis', 'logger'])
    this.#asking = new Asking(options)
    this.scheduled = new Scheduled(this.#asking)
    this.cron = new CronSchedules(this.#asking)
    this.dead = new DeadLetters(this.#asking)
    this.groups = new Groups(this.#asking)
    this.settings = new Settings(this.#asking)
    this.replays = new Replays(this.#asking)
  }

  /** The streams in use, by name: at most 1000. Only a stream that producers or workers of millrace touched is listed. */
  async streams(): Promise<string[]> {
    return this.#asking.run('the list of streams', (client) => streamsInUse(client, this.#asking.logger))
  }

  /**
   * How one stream stands, or all of them. Of the listed ones those that do not exist are left out, and those whose key is
   * of another type too, with a warning.
   * @throws MillraceError ERR_NOT_FOUND for a named stream that does not exist; RedisError if its key is of another type,
   * and if Redis cannot be reached or refuses.
   */
  async stats(stream?: string): Promise<StreamStats[]> {
    if (stream !== undefined) {
      checkStreamName(stream)
      return this.#asking.run(`stream ${stream}`, async (client) => [await this.#named(client, stream)])
    }
    return this.#asking.run('the streams', (client) => this.#all(client))
  }

  /**
   * Cancels a job, for all groups of the stream or one, wherever it is: a delayed publish, a retry or a dead letter goes;
   * one that waits to be delivered is not run; one that runs has its signal aborted within a pulse. What is settled stays
   * so, and `cancelled` is false if that is all there is. Cancelling again does no harm.
   * @param jobId as a publish returned it.
   * @throws OptionError on a wrong name or id, and for a delayed publish with a group; MillraceError ERR_NOT_FOUND if
   * neither the stream nor a group knows the job; RedisError if Redis cannot be reached or refuses, and if 100 000 jobs
   * were cancelled in the last 7 days. After a lost connection it may be cancelled or not: ask again.
   */
  async cancel(stream: string, jobId: string, options: CancelOptions = {}): Promise<CancelResult> {
    checkJobAsked('cancel', stream, jobId, options)
    return this.#asking.run(`a cancel of job ${jobId} on ${stream}`, (client) =>
      cancelJob(client, stream, jobId, options),
    )
  }

  /**
   * Where a job is and why, in each group of the stream or in one: facts, and sentences that tell them. The id of a dead
   * letter, or of an entry of a redelivery stream, stands for its job. It costs the same however much the stream holds.
   * @param jobId as a publish returned it.
   * @throws OptionError on a wrong name or id, and for a stream of more than 100 groups of which none is named;
   * MillraceError ERR_NOT_FOUND if there is no such stream, UnknownGroupError; RedisError. A job that nobody knows is no
   * error: `isKnown` is false then.
   */
  async explain(stream: string, jobId: string, options: ExplainOptions = {}): Promise<Explanation> {
    checkExplain(stream, jobId, options)
    return this.#asking.run(`job ${jobId} of ${stream}`, (client) => explainJob(client, stream, jobId, options))
  }

  /**
   * How a job ended that was published with `result`, and what its handler gave back, without waiting: for a caller who was told its
   * id and asks later.
   * @throws OptionError; RedisError. A job of which nothing is known is no error: its state is `unknown` then.
   */
  async result(stream: string, jobId: string, options: ResultLookOptions = {}): Promise<JobResult> {
    return lookAtResult(this.#asking, stream, jobId, options)
  }

  /**
   * Jobs of the stream's history, by time, name, a text in their payload or an expression: the first ones, within a bound of
   * how many entries are looked at. `next` says where to go on.
   * @throws OptionError, WhereError; MillraceError ERR_NOT_FOUND if there is no such stream, ERR_HISTORY if the range begins
   * before the history does; RedisError.
   */
  async find(stream: string, options: FindOptions = {}): Promise<Found> {
    const asked = checkFind(stream, options)
    return findJobs(this.#asking, stream, asked)
  }

  /**
   * What retention would remove from a stream now, and what keeps it from removing more; with `execute` it is removed, in
   * small steps, never what a group has not settled.
   * @throws OptionError; MillraceError ERR_NOT_FOUND if there is no such stream; RedisError, also in the middle: what was
   * removed until then stays removed.
   */
  async trim(stream: string, options: TrimOptions = {}): Promise<TrimResult> {
    return trimStream(this.#asking, stream, options)
  }

  /**
   * Accounts for every job of a range of minutes: adds up what the stream holds, and what a group has made of it, and tells
   * what does not add up, by id where that can be known. With `repair` jobs that are nowhere are handed back to the group,
   * with `execute` in fact. Jobs may move meanwhile: what is found stands still.
   * @throws OptionError; MillraceError ERR_NOT_FOUND if there is no such stream, ERR_HISTORY if the range begins before what
   * the stream still holds; UnknownGroupError; RedisError, also in the middle: what was handed back until then stays so.
   */
  async audit(stream: string, options: AuditOptions): Promise<AuditResult> {
    return auditStream(this.#asking, stream, options)
  }

  /**
   * What a group has in hand, in the order of entry ids, page by page: who has it, since when, how often it was delivered.
   * @throws OptionError; MillraceError ERR_NOT_FOUND; UnknownGroupError; RedisError.
   */
  async pending(stream: string, group: string, options: PendingOptions = {}): Promise<PendingPage> {
    return pendingJobs(this.#asking, stream, group, options)
  }

  /**
   * Who works for a group, and who did and holds entries still.
   * @throws OptionError; MillraceError ERR_NOT_FOUND; UnknownGroupError; RedisError.
   */
  async workers(stream: string, group: string): Promise<WorkersPage> {
    return groupWorkers(this.#asking, stream, group)
  }

  /**
   * What became of a group's jobs, by the minute in which they were published; kept for about a week.
   * @throws OptionError; MillraceError ERR_NOT_FOUND; UnknownGroupError; RedisError.
   */
  async history(stream: string, group: string, options: HistoryOptions = {}): Promise<GroupHistory> {
    return groupHistory(this.#asking, stream, group, options)
  }

  /**
   * The newest entries of a stream that match, oldest first; with `follow` also those that come, each once, until the signal
   * aborts or the loop is left. One search looks back at most over 100 000 entries or 200 MiB.
   * @throws OptionError at once; in the loop MillraceError ERR_NOT_FOUND and ERR_HISTORY, and RedisError, but not for a Redis
   * that goes away while it follows: then it waits.
   */
  tail(stream: string, options: TailOptions = {}): AsyncGenerator<TailEntry> {
    return tailStream(this.#asking, stream, options)
  }

  /**
   * Pauses a stream or one of its groups, by the time of Redis until it is over or resumed: within two pulses (2 s) workers begin
   * no more jobs of it. What runs finishes; what waits in a worker is handed back at no cost. Publishing goes on, retries are
   * scheduled, retention trims. A pause that is in force already is replaced by this one.
   * @throws OptionError; MillraceError ERR_NOT_FOUND if there is no such stream; UnknownGroupError; RedisError.
   */
  async pause(stream: string, options: PauseOptions = {}): Promise<PauseResult> {
    return pauseStream(this.#asking, stream, options)
  }

  /**
   * Ends the pause of a stream or of one of its groups: work goes on within two pulses. A group works only if neither it nor
   * its stream is paused: `still` tells of what stays so.
   * @throws as `pause`.
   */
  async resume(stream: string, options: { group?: string } = {}): Promise<ResumeResult> {
    return resumeStream(this.#asking, stream, options)
  }

  /**
   * What is well with the server and the streams on it and what is not, each with why it matters and what to do. It writes
   * nothing. What the server does not let us see is `unknown`, and no error. At most 100 streams; name one for others.
   * @throws OptionError; MillraceError ERR_NOT_FOUND for a named stream that does not exist; RedisError.
   */
  async doctor(options: DoctorOptions = {}): Promise<Diagnosis> {
    return diagnose(this.#asking, options)
  }

  /** Ends the connection; calls that wait for an answer fail. */
  close(): void {
    this.#asking.close()
  }

  async #named(client: Client, stream: string): Promise<StreamStats> {
    return this.#streamStats(client, stream, await existingStream(client, stream))
  }

  async #all(client: Client): Promise<StreamStats[]> {
    const names = await streamsInUse(client, this.#asking.logger)
    const found: (StreamStats | undefined)[] = []
    for (let from = 0; from < names.length; from += AT_ONCE) {
      found.push(
        ...(await Promise.all(names.slice(from, from + AT_ONCE).map((stream) => this.#listedIfSound(client, stream)))),
      )
    }
    return found.filter((stats) => stats !== undefined)
  }

  async #listed(client: Client, stream: string): Promise<StreamStats | undefined> {
    const seen = await readStream(client, stream, MOST_GROUPS)
    if (seen.kind === 'other') this.#leftOut(stream, otherType(stream, seen.type))
    return seen.kind === 'stream' ? this.#streamStats(client, stream, seen) : undefined
  }

  /** A key of one stream that somebody has bent must not hide all the others. */
  async #listedIfSound(client: Client, stream: string): Promise<StreamStats | undefined> {
    try {
      return await this.#listed(client, stream)
    } catch (error) {
      if (!(error instanceof Error) || !error.message.includes('WRONGTYPE')) throw error
      this.#leftOut(stream, faultText(error))
      return undefined
    }
  }

  #leftOut(stream: string, fault: string): void {
    this.#asking.logger.warn({ stream, fault }, 'a key of this stream is of another type: the stream is left out')
  }

  async #streamStats(client: Client, stream: string, seen: StreamSeen & { kind: 'stream' }): Promise<StreamStats> {
    return streamStats(stream, seen, await readGroups(client, stream, seen, this.#asking.logger))
  }
}
