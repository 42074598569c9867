import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { messageOf } from '../errors.ts'
import { withFields, type Logger } from '../logger.ts'
import type { SpillRecovery as SpillRecovered } from '../producer-events.ts'
import type { Connection } from '../redis/connection.ts'
import { RecoveryStopped, SpillAsking, StreamRefused } from './spill-asking.ts'
import { settleBatch, type Ending, type Publishing } from './spill-batch.ts'
import { SpillBook, type SpillPlan } from './spill-book.ts'
import type { SpillFile } from './spill-files.ts'
import { countSpill, leaveRest } from './spill-left.ts'
import { SequenceRun } from './spill-sequence.ts'
import { isWriting } from './spill-writing.ts'

/** A writer of this host that lives and has written nothing for so long writes no more: its pid is another's now. */
const STALLED_MS = 600_000

/** The same of a writer on another host, of which nobody here can say whether it lives. */
const SILENT_MS = 60_000

/** Tries after which a pause is as long as it gets. */
const LONG_PAUSE = 10

export interface SpillRecoveryOptions {
  readonly logger: Logger
  /** Told of every file that is done. */
  readonly onDone?: (recovered: SpillRecovered) => void
  /** Told when jobs of a stream need wait no longer; ask `holds`. */
  readonly onReleased?: () => void
  /** Whether jobs are to wait though there is room for them. @default never */
  readonly isHeld?: () => boolean
}

/** A file, and the streams for which it is done. */
interface Held extends SpillFile {
  readonly released: Set<string>
}

/**
 * Publishes what earlier processes have spilled, before anything else that goes to the same streams; see `SequenceRun` for
 * how nothing of it is doubled. One file after the other, the oldest first, in bounded memory: a batch at a time.
 *
 * Goes on for as long as Redis is away, and keeps the process running only while Redis answers. A file that was not done when
 * it was stopped, or that cannot be done now, stays as it is for the next start.
 */
export class SpillRecovery {
  readonly #options: SpillRecoveryOptions
  readonly #asking: SpillAsking
  readonly #owner = randomBytes(4).toString('hex')
  readonly #stopping = new AbortController()
  /** Files that are still to be done. */
  readonly #held: Set<Held>
  /** Streams whose jobs Redis will not have from us; they are not tried again before the next start. */
  readonly #refused = new Set<string>()
  #running: Promise<SpillRecovered[]> | undefined

  constructor(connection: Connection, files: readonly SpillFile[], options: SpillRecoveryOptions) {
    this.#options = options
    this.#asking = new SpillAsking(connection, options.logger, this.#stopping.signal)
    this.#held = new Set(files.map((file) => ({ ...file, released: new Set<string>() })))
  }

  /** Whether spilled jobs of this stream are to be published before others. Known from construction on. */
  holds(stream: string): boolean {
    for (const { header, released } of this.#held) {
      if (!released.has(stream) && (header.streams === undefined || header.streams.includes(stream))) return true
    }
    return false
  }

  /** Resolves, and never rejects, when every file is done or left, with what became of those that are done. */
  start(): Promise<SpillRecovered[]> {
    this.#running ??= this.runOnce()
    return this.#running
  }

  /** Resolves when nothing is sent any more. Closing the connection makes it soon. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  async runOnce(): Promise<SpillRecovered[]> {
    if (this.#held.size === 0) return []
    const { connection } = this.#asking
    const recovered: SpillRecovered[] = []
    const busy: Held[] = []
    connection.hold(true)
    try {
      for (const held of this.#held) await this.#contained(held, recovered, busy)
      // Nothing waits for these: their writer is a process beside this one, not one before it.
      for (const held of busy) {
        // One that cannot even be looked at is told of by what tries to publish it.
        while (await isBusy(held).catch(() => false)) await this.#asking.pause(LONG_PAUSE)
        await this.#contained(held, recovered)
      }
    } catch (error) {
      if (!(error instanceof RecoveryStopped)) throw error
    } finally {
      connection.hold(false)
      this.#held.clear()
      this.#options.onReleased?.()
    }
    return recovered
  }

  /** A file that cannot be done holds up neither the others nor the producer. @throws RecoveryStopped */
  async #contained(held: Held, recovered: SpillRecovered[], busy?: Held[]): Promise<void> {
    const logger = withFields(this.#options.logger, { file: held.file })
    try {
      this.#asking.checkStopped()
      if (busy !== undefined && (await isBusy(held))) {
        logger.info({}, 'a spill file is still being written; it is published when that is over')
        return void busy.push(held)
      }
      const done = await this.#recover(held, logger)
      if (done === undefined) return
      recovered.push(done)
      this.#options.onDone?.(done)
    } catch (error) {
      if (error instanceof RecoveryStopped) throw error
      logger.error({ fault: messageOf(error) }, 'cannot publish a spill file; it stays for the next start')
    } finally {
      this.#held.delete(held)
      this.#options.onReleased?.()
    }
  }

  async #recover(held: Held, logger: Logger): Promise<SpillRecovered | undefined> {
    const book = await SpillBook.open(held)
    if (book === undefined) return undefined
    try {
      const isHeld = this.#options.isHeld ?? (() => false)
      const publishing = { book, asking: this.#asking, logger, owner: this.#owner, isHeld }
      const ending = await this.#publish(publishing, await book.plan(), held)
      if (ending === 'taken') logger.info({}, 'another process publishes the spill file')
      return ending === 'done' ? await finish(publishing) : undefined
    } finally {
      await book.close()
    }
  }

  /** In the order in which they were published: what was on its way first. */
  async #publish(publishing: Publishing, { batches, sequences }: SpillPlan, held: Held): Promise<Ending | 'refused'> {
    for (const planned of batches) {
      const ending = await this.#unlessRefused(publishing, planned.batch.stream, () => settleBatch(publishing, planned))
      if (ending === 'taken') return ending
    }
    for (const planned of sequences) {
      const { stream } = planned
      const ending = await this.#unlessRefused(publishing, stream, () => new SequenceRun(publishing, planned).run())
      if (ending === 'taken') return ending
      held.released.add(stream)
      this.#options.onReleased?.()
    }
    const streams = [...batches.map(({ batch }) => batch), ...sequences].map(({ stream }) => stream)
    return streams.some((stream) => this.#refused.has(stream)) ? 'refused' : 'done'
  }

  async #unlessRefused(
    { logger }: Publishing,
    stream: string,
    publish: () => Promise<Ending>,
  ): Promise<Ending | 'refused'> {
    if (this.#refused.has(stream)) return 'refused'
    try {
      return await publish()
    } catch (error) {
      if (!(error instanceof StreamRefused)) throw error
      this.#refused.add(stream)
      logger.error({ stream, fault: error.message }, 'Redis refuses spilled jobs; they stay for the next start')
      return 'refused'
    }
  }
}

/** Everything has its answer: leaves what could not be published in a file of its own, and removes the spill file. */
async function finish({ book, logger }: Publishing): Promise<SpillRecovered | undefined> {
  // Whoever removed it has told of it.
  if (book.isRemoved()) return undefined
  const { counts, left } = await countSpill(book)
  const rest = left.length === 0 ? undefined : await leaveRest(book, left)
  book.remove()
  const { published, unknown, refused, broken, missing } = counts
  if (rest === undefined && missing === 0) logger.info({ published }, 'a spill file was published')
  else logger.warn({ ...counts, left: rest }, 'a spill file was published, but not all of it')
  return { file: book.file, published, unknown, broken: broken + refused, left: rest }
}

/** Whether somebody may still be writing it: it has no end yet. */
async function isBusy(found: SpillFile): Promise<boolean> {
  const book = await SpillBook.open(found)
  if (book === undefined) return false
  try {
    if (await book.isEnded()) return false
    const { host, pid, id } = found.header
    const silentMs = Date.now() - (await book.writtenAtMs())
    if (host !== hostname()) return silentMs < SILENT_MS
    // In a container every process may have the same pid, and this one be the next.
    if (pid === process.pid) return isWriting(id)
    return silentMs < STALLED_MS && isAlive(pid)
  } finally {
    await book.close()
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
