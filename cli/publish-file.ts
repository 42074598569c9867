import { randomUUID } from 'node:crypto'
import { basename } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { Feed } from '../src/index.ts'
import { behind, ChangedInputError, openInput, type BulkInput } from './bulk-input.ts'
import type { When } from './bulk-line.ts'
import { BEGINNING, placeOf, type BulkPlace } from './bulk-place.ts'
import { BulkPublish, type BulkCounts } from './bulk-publish.ts'
import { readState, removeState, statePathOf, writeState, type BulkState } from './bulk-state.ts'
import type { CliContext } from './context.ts'
import { CliError, codeOf, EXIT, exitCodeOf, usageError } from './exit.ts'
import { LineError } from './ndjson.ts'
import { countText, jsonLine, plural, spanText } from './output.ts'
import { Progress } from './progress.ts'
import { exitCodeOfSignal, onStopSignals } from './stop-signals.ts'

/** How long Redis may take no job of a file: it should survive a failover. */
const TIMEOUT_MS = 30_000
/** The first step tells whether Redis is there at all, which nobody should wait longer for. */
const REACH_MS = 5000

export interface FileFlags {
  readonly timeout?: number
  readonly json?: boolean
  readonly resume?: boolean
  readonly state?: string
}

export interface FilePublish {
  readonly stream: string
  readonly path: string
  /** When jobs are due whose lines do not say; undefined where the command line does not say either. */
  readonly when: When | undefined
}

/** Where the state of a file is kept, and what was found there; undefined for an input that cannot be read again. */
interface Kept {
  readonly path: string
  readonly state: BulkState
  readonly isBegun: boolean
}

/** Publishes the jobs of a file, or goes on with one that was interrupted. */
export async function publishFile(context: CliContext, asked: FilePublish, flags: FileFlags): Promise<void> {
  const input = await openInput(context, asked.path)
  try {
    const kept = await findState(asked, flags, input)
    const run = new FileRun(context, asked, { flags, kept })
    await run.run(input)
  } finally {
    input.destroy()
  }
}

async function findState(asked: FilePublish, flags: FileFlags, input: BulkInput): Promise<Kept | undefined> {
  const { stream, path, when } = asked
  if (input.size === undefined) {
    if (flags.resume !== true && flags.state === undefined) return undefined
    const flag = flags.resume === true ? '--resume' : '--state'
    throw usageError(`expected a file with \`${flag}\`: what comes from ${nameOf(path)} cannot be read a second time`)
  }
  const statePath = flags.state ?? statePathOf(path)
  const found = await readState(statePath)
  if (flags.resume !== true) {
    if (found !== undefined) throw usageError(begunText(found, { statePath, stream }))
    const state = {
      feed: randomUUID(),
      stream,
      file: basename(path),
      when: when ?? {},
      begunAt: new Date().toISOString(),
    }
    return { path: statePath, state, isBegun: false }
  }
  if (found === undefined) {
    const why = `there is no ${statePath}, so it was published to its end, or never begun`
    throw new CliError(`nothing to resume: ${why}`, EXIT.notFound)
  }
  if (found.file !== basename(path)) {
    throw usageError(
      `expected the file ${found.file}, of which ${statePath} keeps that it was begun, got ${path}; name it so if it is the same`,
    )
  }
  if (found.stream !== stream) {
    throw usageError(`expected the stream ${found.stream}, to which ${path} was begun to be published, got ${stream}`)
  }
  if (when !== undefined && !isDeepStrictEqual(when, found.when)) {
    throw usageError(
      `${path} was begun with another \`--delay\` or \`--at\`; leave it out: what it was begun with counts`,
    )
  }
  return { path: statePath, state: found, isBegun: true }
}

function begunText(found: BulkState, { statePath, stream }: { statePath: string; stream: string }): string {
  const where = found.stream === stream ? '' : ` to ${found.stream}`
  return (
    `${found.file} was begun to be published${where} at ${found.begunAt} and not finished; nothing was done: go on with \`--resume\`, ` +
    `or remove ${statePath} to publish it again from its first line`
  )
}

class FileRun {
  readonly #context: CliContext
  readonly #asked: FilePublish
  readonly #flags: FileFlags
  readonly #kept: Kept | undefined
  readonly #progress: Progress
  readonly #startedMs = performance.now()
  #bulk: BulkPublish | undefined
  #input: BulkInput | undefined
  #interruption: NodeJS.Signals | undefined
  #isNoted = false
  /** Where this command began. */
  #begin: BulkPlace = BEGINNING

  constructor(context: CliContext, asked: FilePublish, { flags, kept }: { flags: FileFlags; kept: Kept | undefined }) {
    this.#context = context
    this.#asked = asked
    this.#flags = flags
    this.#kept = kept
    this.#progress = new Progress(context.stderr)
  }

  async run(input: BulkInput): Promise<void> {
    const redis = this.#context.redis()
    const { Feed } = await import('../src/index.ts')
    const { stream } = this.#asked
    const id = this.#kept?.state.feed ?? randomUUID()
    const isNew = this.#kept?.isBegun !== true
    const feed = new Feed({ redis, stream, id, isNew, timeoutMs: this.#flags.timeout ?? TIMEOUT_MS })
    const slowEnd = new AbortController()
    const stopListening = onStopSignals(
      (signal) => this.#interrupt(signal, slowEnd.signal),
      (exitCode) => this.#context.exitNow(exitCode),
    )
    let isWhole = false
    try {
      await this.#publish(feed, input)
      isWhole = this.#bulk?.problem === undefined && this.#interruption === undefined
      if (isWhole && this.#kept !== undefined) await removeState(this.#kept.path, this.#kept.state)
    } finally {
      stopListening()
      slowEnd.abort()
      this.#progress.end()
      await feed.close({ timeoutMs: 0, isFinished: isWhole || this.#kept === undefined })
      if (this.#flags.json) this.#context.stdout.write(jsonLine(this.#document()))
    }
    if (this.#bulk !== undefined) this.#report(this.#bulk)
  }

  /** Once, or again from where Redis still knows it, if Redis has lost some of it in between. */
  async #publish(feed: Feed, first: BulkInput): Promise<void> {
    let counts: BulkCounts | undefined
    for (let input = first; ; input = await openInput(this.#context, this.#asked.path)) {
      const place = await this.#open(feed)
      if (counts === undefined) this.#setOut(place)
      else counts = { ...counts, published: Math.max(0, place.jobs - this.#begin.jobs), failed: 0, unknown: 0 }
      const bulk = await this.#publishFrom(feed, { input, place, counts })
      const isLost = codeOf(bulk.problem) === 'ERR_FEED_BEHIND'
      if (!isLost || this.#kept === undefined || this.#interruption !== undefined) return
      counts = bulk.counts
      this.#progress.end()
      this.#context.say(
        'Redis has lost jobs that it had confirmed (a failover, or a restart without persistence); publishing them again',
      )
    }
  }

  async #open(feed: Feed): Promise<BulkPlace> {
    const { path } = this.#asked
    try {
      const { position } = await feed.open({ timeoutMs: Math.min(this.#flags.timeout ?? TIMEOUT_MS, REACH_MS) })
      const place = placeOf(position)
      if (place !== undefined) return place
    } catch (error) {
      if (codeOf(error) !== 'ERR_FEED_LOST') throw error
    }
    throw new CliError(
      `cannot go on with ${path}: Redis does not know how far it was published (it forgets that after 14 days, or this is ` +
        `another Redis); look what the stream has of it, then remove ${this.#kept?.path ?? ''} to begin it anew`,
      EXIT.failed,
    )
  }

  #setOut(place: BulkPlace): void {
    this.#begin = place
    if (this.#kept?.isBegun !== true) return
    const before = `${plural(place.jobs, 'job')} ${place.jobs === 1 ? 'was' : 'were'} published before`
    this.#context.say(`going on behind line ${countText(place.line)}: ${before}`)
  }

  /** From here on the file is begun: not before, for nothing was published of it, and not later, for something may be. */
  async #noteBegun(): Promise<void> {
    if (this.#kept === undefined || this.#isNoted || this.#kept.isBegun) return
    await writeState(this.#kept.path, this.#kept.state)
    this.#isNoted = true
  }

  async #publishFrom(
    feed: Feed,
    { input, place, counts }: { input: BulkInput; place: BulkPlace; counts: BulkCounts | undefined },
  ): Promise<BulkPublish> {
    const { path, when } = this.#asked
    let baseBytes: number | undefined
    const bulk: BulkPublish = new BulkPublish(feed, {
      from: place,
      when: this.#kept?.state.when ?? when ?? {},
      ...(counts !== undefined && { counts }),
      // The next line may never come (`tail -f`): what failed is to be told now.
      failed: () => input.destroy(),
      begun: () => this.#noteBegun(),
      told: () => {
        baseBytes ??= place.line === 0 ? 0 : input.readBytes
        const left = input.size === undefined ? undefined : input.size - baseBytes
        this.#progress.update(
          bulk.counts.published,
          left === undefined ? undefined : (input.readBytes - baseBytes) / left,
        )
      },
    })
    this.#bulk = bulk
    this.#input = input
    if (this.#interruption !== undefined) this.#stop()
    try {
      await bulk.run(place.line === 0 ? input.chunks : behind(input.chunks, place))
    } catch (error) {
      if (error instanceof CliError) throw error
      if (!(error instanceof ChangedInputError)) {
        throw new CliError(
          `cannot read ${nameOf(path)}: ${(error as Error).message}${soFar(bulk)}${this.#goOn(bulk)}`,
          isBegun(bulk) ? EXIT.partly : EXIT.failed,
        )
      }
      throw usageError(
        `cannot go on with ${path}: ${error.message} (up to line ${place.line}); nothing was done: publish what is left from a ` +
          `file of its own, and remove ${this.#kept?.path ?? ''}`,
      )
    } finally {
      input.destroy()
    }
    return bulk
  }

  #interrupt(signal: NodeJS.Signals, end: AbortSignal): void {
    this.#interruption = signal
    this.#stop()
    const slowEnd = setTimeout(() => {
      this.#progress.end()
      const left = plural(this.#bulk?.inFlight ?? 0, 'job')
      this.#context.say(`waiting for Redis to confirm the last ${left}; Ctrl-C again ends at once`)
    }, 500)
    end.addEventListener('abort', () => clearTimeout(slowEnd))
  }

  #stop(): void {
    this.#bulk?.stop()
    this.#input?.destroy()
  }

  #document(): object {
    const none = { published: 0, failed: 0, unknown: 0, firstId: null, lastId: null }
    const before = this.#kept?.isBegun === true ? { publishedBefore: this.#begin.jobs } : {}
    return { stream: this.#asked.stream, ...(this.#bulk?.counts ?? none), ...before }
  }

  /** How to go on, where that is for us to do. */
  #goOn({ problem }: BulkPublish): string {
    if (codeOf(problem) === 'ERR_FEED_TAKEN') return '; another process goes on with the file'
    return this.#isNoted || this.#kept?.isBegun === true ? '; go on with --resume' : ''
  }

  /** Says what became of the jobs. @throws CliError if not all of them were published. */
  #report(bulk: BulkPublish): void {
    const { counts, problem } = bulk
    const goOn = this.#goOn(bulk)
    if (problem !== undefined) {
      const { why } = problem as { why?: unknown }
      const told = typeof why === 'string' ? `could not publish to ${this.#asked.stream}: ${why}` : problem.message
      const isTold = isBegun(bulk) || problem instanceof LineError
      const code = isBegun(bulk) ? EXIT.partly : problem instanceof LineError ? EXIT.failed : exitCodeOf(problem)
      throw new CliError(`${told}${isTold ? soFar(bulk) : ''}${goOn}`, code)
    }
    const done = `published ${plural(counts.published, 'job')} to ${this.#asked.stream}${ofWhich(counts)}`
    if (this.#interruption !== undefined) {
      this.#context.say(`interrupted: ${done}; the rest was not read${goOn}`)
      this.#context.finish(exitCodeOfSignal(this.#interruption))
      return
    }
    const seconds = (performance.now() - this.#startedMs) / 1000
    const rate = seconds > 0 ? ` (${countText(counts.published / seconds)}/s)` : ''
    this.#context.say(`${done} in ${spanText(seconds)}${rate}`)
  }
}

/** A job that was there already is not told as one that is new. */
function ofWhich({ duplicates = 0, replaced = 0 }: BulkCounts): string {
  const parts = []
  if (duplicates > 0) parts.push(`${countText(duplicates)} ${duplicates === 1 ? 'was' : 'were'} there already`)
  if (replaced > 0) parts.push(`${countText(replaced)} replaced another`)
  return parts.length === 0 ? '' : `, of which ${parts.join(' and ')},`
}

/** Whether a part of it was done, as far as anybody knows. */
function isBegun({ counts }: BulkPublish): boolean {
  return counts.published > 0 || counts.unknown > 0
}

function soFar({ counts }: BulkPublish): string {
  const fates = [`${plural(counts.published, 'job')} ${counts.published === 1 ? 'was' : 'were'} published`]
  if (counts.failed > 0) fates.push(`${countText(counts.failed)} failed`)
  if (counts.unknown > 0) fates.push(`${countText(counts.unknown)} may be in Redis or not`)
  return `; ${fates.join(', ')}`
}

function nameOf(path: string): string {
  return path === '-' ? 'stdin' : path
}
