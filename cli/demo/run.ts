import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Inspector, Producer } from '../../src/index.ts'
import { CliError, EXIT } from '../exit.ts'
import { plural } from '../output.ts'
import { Pool } from '../pool.ts'
import type { Display } from './display.ts'
import { HASH_FILE, type GateOrder, type GateReport } from './job.ts'
import type { Place } from './place.ts'
import { ResultReader } from './results.ts'
import type { Crash } from './verdict.ts'

/**
 * The demo between its input and its verdict: publish a job for each file, let the workers run, kill one of them with jobs
 * in its hands, and wait until all jobs are settled.
 *
 * A part of the jobs is published only when every worker holds at its gate. So there is something to hold, however few the
 * files are, and the worker that is killed is one that is known to have jobs running.
 */

export const LEASE_MS = 3000
const CONCURRENCY = 32
/** This share of the files is done before a worker is killed, and this share is published before. */
const DONE_BEFORE = 1 / 3
const PUBLISHED_BEFORE = 2 / 3
/** Between two looks at the results, and at Redis, in ms. */
const LOOK_MS = 50
const ASK_MS = 250
/** How long the other workers get to take jobs too, once the first one holds some. */
const HOLD_MS = 150
/** Without any progress for this long it ends. */
const STUCK_MS = 60_000

export interface Input {
  readonly folder: string
  readonly files: readonly string[]
  readonly processes: number
}

export class Run {
  readonly results: ResultReader
  crash: Crash | undefined
  dead = 0
  readonly #input: Input
  readonly #place: Place
  readonly #display: Display
  readonly #signal: AbortSignal
  readonly #pool: Pool
  readonly #producer: Producer
  readonly #inspector: Inspector
  readonly #held = new Map<number, string[]>()
  readonly #closed = new Set<number>()
  readonly #said: string[] = []
  #isAllReady = false
  #problem: Error | undefined
  #lag: number | undefined
  #pending: number | undefined
  #askedAtMs = 0
  #movedAtMs = performance.now()
  #movement = ''
  #isFirstTold = false

  constructor(input: Input, place: Place, display: Display, signal: AbortSignal) {
    this.#input = input
    this.#place = place
    this.#display = display
    this.#signal = signal
    this.results = new ResultReader(place.results)
    this.#producer = new Producer({ redis: place.url, logger: false })
    this.#inspector = new Inspector({ redis: place.url, logger: false })
    this.#pool = this.#newPool()
  }

  /** Resolves when every job is settled and the workers have ended. */
  async run(): Promise<void> {
    const { files } = this.#input
    const first = Math.floor(files.length * PUBLISHED_BEFORE)
    this.#pool.start()
    const publishing = this.#publish(files.slice(0, first))
    await this.#until(() => this.#isAllReady && this.results.runs.size >= Math.floor(files.length * DONE_BEFORE))
    for (const { pid } of this.#pool.workers) this.#tell(pid, 'demo:hold')
    await this.#until(() => this.#pool.workers.every(({ pid }) => this.#closed.has(pid)))
    const published = publishing.then(() => this.#publish(files.slice(first)))
    await this.#until(() => this.#held.size > 0)
    await sleep(HOLD_MS, undefined, { signal: this.#signal })
    this.#crash()
    for (const { pid } of this.#pool.workers) this.#tell(pid, 'demo:release')
    await published
    this.#throwProblem()
    this.#askedAtMs = 0
    this.#lag = undefined
    await this.#until(() => this.#lag === 0 && this.#pending === 0)
    this.#pool.drain()
    await this.#pool.ended
    await this.results.read()
    this.#show()
  }

  /** Ends what still runs. */
  async close(): Promise<void> {
    this.#inspector.close()
    this.abandon()
    await this.#pool.ended
    await this.#producer.close({ timeoutMs: 0 })
    await this.results.close()
  }

  /** The same for a process that ends now. */
  abandon(): void {
    this.#pool.kill()
  }

  #newPool(): Pool {
    const { folder, processes } = this.#input
    const { url, stream, results } = this.#place
    const entry = import.meta.url.endsWith('.ts') ? './handlers.ts' : './handlers.js'
    const handlers = fileURLToPath(new URL(entry, import.meta.url))
    const options = { redis: url, stream, concurrency: CONCURRENCY, leaseMs: LEASE_MS, timeoutMs: false, drainMs: 5000 }
    const pool = new Pool(
      {
        processes,
        orders: { handlers, options: { ...options, timeoutMs: false } },
        drainMs: options.drainMs,
        output: (line) => void this.#said.push(line),
        env: { MILLRACE_DEMO_FOLDER: folder, MILLRACE_DEMO_RESULTS: results },
      },
      {
        ready: ({ pid }) =>
          this.#display.event(`worker ${pid} ready${this.crash === undefined ? '' : ' in its place'}`),
        allReady: () => (this.#isAllReady = true),
        replaced: ({ pid, why }) => {
          if (pid !== this.crash?.pid) this.#display.event(`worker ${pid} ended (${why}); another one follows`)
        },
        message: (pid, message) => this.#heard(pid, message as GateReport),
      },
    )
    void pool.ended.then(({ failure }) => {
      if (failure !== undefined) this.#problem ??= new CliError(failure.message, failure.exitCode)
    })
    return pool
  }

  /** Never rejects: what went wrong is thrown by whoever waits for progress. */
  async #publish(files: readonly string[]): Promise<void> {
    const jobs = files.map((file) => ({ file }))
    await this.#producer.publishMany(HASH_FILE, jobs, { stream: this.#place.stream }).catch((error: Error) => {
      this.#problem ??= error
    })
  }

  #heard(pid: number, report: GateReport): void {
    if (report.kind === 'demo:closed') this.#closed.add(pid)
    if (report.kind !== 'demo:holding') return
    const held = this.#held.get(pid)
    if (held === undefined) this.#held.set(pid, [report.id])
    else held.push(report.id)
  }

  #tell(pid: number, kind: GateOrder['kind']): void {
    this.#pool.send(pid, { kind } satisfies GateOrder)
  }

  /** Kills the worker that has most jobs running. */
  #crash(): void {
    const [pid, heldIds] = [...this.#held].reduce((most, next) => (next[1].length > most[1].length ? next : most))
    this.crash = { pid, killedMs: Date.now(), heldIds: [...heldIds] }
    this.#pool.killWorker(pid)
    this.#display.event(`worker ${pid} killed with SIGKILL while it ran ${plural(heldIds.length, 'job')}`, 'yellow')
  }

  /** Looks at the results and at Redis, and shows them, until it is so. */
  async #until(isSo: () => boolean): Promise<void> {
    for (;;) {
      await this.results.read()
      if (performance.now() - this.#askedAtMs >= ASK_MS) await this.#ask()
      this.#show()
      this.#throwProblem()
      if (isSo()) return
      await sleep(LOOK_MS, undefined, { signal: this.#signal })
    }
  }

  /** The stream may not be there yet, and Redis may be away for a moment. */
  async #ask(): Promise<void> {
    this.#askedAtMs = performance.now()
    const [stats] = await this.#inspector.stats(this.#place.stream).catch(() => [])
    const group = stats?.groups[0]
    if (group === undefined) return
    this.#lag = group.lag ?? (group.lagSeconds > 0 ? 1 : 0)
    this.#pending = group.pending
    this.dead = group.dead
  }

  #show(): void {
    const { runs, redelivered } = this.results
    const recovered = redelivered.filter(({ pid }) => pid !== this.crash?.pid)
    const files = this.#input.files.length
    const [lag, pending] = [this.#lag, this.#pending]
    this.#display.update({ doing: 'done', done: runs.size, files, lag, pending, recovered: recovered.length })
    const [first] = recovered
    if (first !== undefined && !this.#isFirstTold) {
      this.#isFirstTold = true
      this.#display.event(`the first of its jobs runs again, on worker ${first.pid}`)
    }
    const movement = `${runs.size} ${lag} ${pending} ${recovered.length}`
    if (movement !== this.#movement) this.#movedAtMs = performance.now()
    this.#movement = movement
  }

  #throwProblem(): void {
    this.#signal.throwIfAborted()
    if (performance.now() - this.#movedAtMs > STUCK_MS) {
      this.#problem ??= new CliError(`nothing has moved for ${STUCK_MS / 1000} s (${this.#movement})`, EXIT.failed)
    }
    if (this.#problem === undefined) return
    const said = this.#said.filter((line) => line !== '').slice(-5)
    if (said.length > 0) this.#display.event(`the workers said: ${said.join(' / ')}`)
    throw this.#problem
  }
}
