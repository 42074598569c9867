import { backoffMs, monotonicMs, sleep } from '../clock.ts'
import { LeaseLostError, RedisError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { QuietWarnings } from '../quiet-warnings.ts'
import type { Connection } from '../redis/connection.ts'
import { faultText } from '../redis/faults.ts'
import { SOURCES, type Member } from '../redis/member.ts'
import { NOTES_BATCH, putNotes, readCheckpoint, type NotesToWrite } from '../redis/notes.ts'
import { MOST_LOG_LINES } from '../redis/scripts/notes.ts'
import type { ServerClock } from '../server-clock.ts'
import { checkpointText, lineText, progressText } from './note.ts'
import { RunNotes } from './run-notes.ts'
import type { NotedRun, NoteTaker } from './taking.ts'

/**
 * Writes down what handlers say of their jobs, for people and for the next run. Progress and log lines are best effort: of all jobs
 * together once a second, and what cannot be written is dropped. A checkpoint is in Redis when it resolves, and is tried again while
 * Redis is away, until the run has ended. None is written by a run that has lost its lease: that is checked where it is written.
 *
 * Notes of a job go when it completes, in the script that settles it.
 */
const EVERY_MS = 1000

interface NotesDeps {
  readonly connection: Connection
  readonly member: Member
  readonly clock: Pick<ServerClock, 'at'>
  readonly logger: Logger
}

export class RedisNotes implements NoteTaker {
  readonly #deps: NotesDeps
  readonly #dirty = new Set<NotedRun>()
  readonly #warnings = new QuietWarnings()
  #timer: NodeJS.Timeout | undefined
  #flushedAtMs = -Infinity
  /** Whether any handler here has ever said anything: an earlier run of a job may have, then. */
  #isUsed = false

  constructor(deps: NotesDeps) {
    this.#deps = deps
  }

  progress(delivery: NotedRun, value: unknown): void {
    const json = progressText(value)
    if (json === undefined) return this.#tooMuch(delivery)
    this.#of(delivery).progress(json)
    this.#due(delivery)
  }

  log(delivery: NotedRun, line: unknown): void {
    this.#of(delivery).log(lineText(line, this.#nowMs()), MOST_LOG_LINES)
    this.#due(delivery)
  }

  async checkpoint(delivery: NotedRun, state: unknown): Promise<void> {
    const checkpoint = checkpointText(state)
    const { source, stream, id } = delivery
    this.#of(delivery)
    const [isOurs] = await this.#insist(delivery, 'write a checkpoint', () =>
      putNotes(this.#deps.connection.client, this.#deps.member, {
        source,
        notes: [{ ...fenceOf(delivery), checkpoint }],
        atMs: this.#nowMs(),
      }),
    )
    if (isOurs !== true) throw new LeaseLostError(stream, id, 'it is settled or runs on another worker')
  }

  async lastCheckpoint(delivery: NotedRun): Promise<unknown> {
    this.#of(delivery)
    const { connection, member } = this.#deps
    const json = await this.#insist(delivery, 'read a checkpoint', () =>
      readCheckpoint(connection.client, member, delivery.id),
    )
    return json === undefined ? undefined : (JSON.parse(json) as unknown)
  }

  /** Goes before the settlement on the same connection, which would end what it is fenced by. */
  ending(delivery: NotedRun): void {
    if (!this.#dirty.delete(delivery) || !this.#deps.connection.isReady) return
    void this.#write([delivery], true)
  }

  mayHave({ notes, attempt, deliveries }: NotedRun): boolean {
    return notes !== undefined || (this.#isUsed && (attempt > 1 || deliveries > 1))
  }

  #of(delivery: NotedRun): RunNotes {
    this.#isUsed = true
    return (delivery.notes ??= new RunNotes())
  }

  #due(delivery: NotedRun): void {
    this.#dirty.add(delivery)
    if (this.#timer !== undefined) return
    const inMs = Math.max(0, this.#flushedAtMs + EVERY_MS - monotonicMs())
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#flushedAtMs = monotonicMs()
      this.#flush()
    }, inMs)
    this.#timer.unref()
  }

  #flush(): void {
    const due = [...this.#dirty]
    this.#dirty.clear()
    for (const source of SOURCES) {
      const own = due.filter((delivery) => delivery.source === source)
      for (let at = 0; at < own.length; at += NOTES_BATCH) void this.#write(own.slice(at, at + NOTES_BATCH))
    }
  }

  /** Of one source. What fails is dropped, and the lines of it are counted. */
  async #write(deliveries: readonly NotedRun[], isLast = false): Promise<void> {
    const { connection, member } = this.#deps
    const taken = deliveries.map((delivery) => ({ ...fenceOf(delivery), ...delivery.notes?.take() }))
    try {
      await putNotes(connection.client, member, {
        source: deliveries[0]?.source ?? 0,
        notes: taken,
        atMs: this.#nowMs(),
        isLast,
      })
    } catch (error) {
      connection.fault(error)
      taken.forEach(({ lines = [], dropped = 0 }, at) => deliveries[at]?.notes?.lost(lines.length + dropped))
      const unsaid = this.#warnings.due('write')
      if (unsaid === undefined) return
      this.#deps.logger.warn(
        { unsaid, fault: faultText(error) },
        'cannot write progress and log lines of jobs now; they are dropped',
      )
    }
  }

  /** Until Redis has answered, or the run has ended. @throws RedisError where it refuses; why the run has ended. */
  async #insist<Told>(delivery: NotedRun, what: string, ask: () => Promise<Told>): Promise<Told> {
    const { connection } = this.#deps
    for (let tries = 0; ; tries++) {
      if (delivery.ended instanceof LeaseLostError) throw delivery.ended
      try {
        await connection.ready(1000)
        return await ask()
      } catch (error) {
        const { kind } = connection.fault(error)
        if (delivery.ended !== undefined) throw delivery.ended
        // The worker is stopped. A run that has completed has no other end, and what it left behind would try for ever.
        if (connection.isClosed) {
          const text = `cannot ${what} of job ${delivery.id} on ${delivery.stream}: its run is over, and its worker is stopped`
          throw new RedisError('ERR_REDIS_UNREACHABLE', text, { cause: error })
        }
        if (kind === 'lost-group') throw new LeaseLostError(delivery.stream, delivery.id)
        if (kind === 'refused' || kind === 'fatal') {
          const text = `Redis refused to ${what} of job ${delivery.id} on ${delivery.stream}: ${faultText(error)}`
          throw new RedisError('ERR_REDIS_REFUSED', text, { cause: error })
        }
        await sleep(error instanceof RedisError ? 0 : backoffMs(tries, 50, 1000))
      }
    }
  }

  #tooMuch({ name, id }: NotedRun): void {
    const unsaid = this.#warnings.due(name)
    if (unsaid === undefined) return
    this.#deps.logger.warn({ job: name, id, unsaid }, 'progress that is no JSON of at most 1024 bytes is dropped')
  }

  #nowMs(): number {
    return this.#deps.clock.at(monotonicMs())
  }
}

function fenceOf({ entryId, id, deliveries }: NotedRun): NotesToWrite {
  return { entryId, id, deliveries }
}
