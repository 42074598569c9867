import { fork, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { EXIT } from './exit.ts'
import type { StartFailure, SupervisorMessage, WorkerEnd, WorkerMessage, WorkerOrders } from './pool-messages.ts'

/**
 * A supervised worker pool: worker processes, each of which is replaced when it ends by itself.
 *
 *   running ──drain()──▶ draining ──▶ ended
 *
 * - running: a process that ended is replaced after 1 s; after 2 s, 4 s … 30 s if it ends again before it was well for a
 *   minute. What cannot get better by itself ends the pool instead, with the message of the process that met it: wrong
 *   options or handlers, an unknown group, a Redis that refuses us; while none of them has ever been ready also a Redis that
 *   cannot be reached, and handlers that end their process while they are loaded.
 * - draining: every process is told to drain. One that has not ended well after its time is killed.
 *
 * Jobs of a process that was killed are claimed by the others when their lease is over; nothing of that is done here.
 */

const FIRST_DELAY_MS = 1000
const MOST_DELAY_MS = 30_000
const WELL_MS = 60_000
/** What a worker may take beyond its drain to settle outcomes and to end. */
const END_MS = 10_000
/** The same for one that is not ready, and so holds nothing. */
const UNREADY_END_MS = 2000

export interface PoolOptions {
  readonly processes: number
  readonly orders: WorkerOrders
  readonly drainMs: number
  /** What the processes print: goes where ours goes, or is told line by line. */
  readonly output: 'inherit' | ((line: string) => void)
  /** Added to the environment of the processes. */
  readonly env?: NodeJS.ProcessEnv
}

/** What others may know of a process of the pool. */
export interface PoolWorker {
  readonly pid: number
  readonly consumer: string
  readonly leaseMs: number
}

export interface PoolEvents {
  /** A process has its handlers and its options, and goes to Redis. */
  readonly loaded: () => void
  readonly ready: (worker: PoolWorker) => void
  /** All of them are ready for the first time. */
  readonly allReady: () => void
  /** A process ended by itself; another one follows after `delayMs`. */
  readonly replaced: (gone: { pid: number; why: string; delayMs: number }) => void
  /** A process did not end in its time and is killed. */
  readonly killed?: (pid: number) => void
  /** Something that the handlers sent to us. */
  readonly message?: (pid: number, message: unknown) => void
}

export interface PoolResult {
  /** Why it ended, if it was not told to. */
  readonly failure: StartFailure | undefined
  /** Sums over the processes that drained. */
  readonly done: WorkerEnd
  readonly replaced: number
  /** Processes that were to drain and ended otherwise: killed by us or by others, or crashed. */
  readonly lost: number
}

/** A place in the pool: one process at a time. */
interface Slot {
  child: ChildProcess | undefined
  worker: PoolWorker | undefined
  failure: StartFailure | undefined
  /** It has drained and said so. */
  isDone: boolean
  readyAtMs: number
  delayMs: number
  timer: NodeJS.Timeout | undefined
}

export class Pool {
  readonly ended: Promise<PoolResult>
  readonly #options: PoolOptions
  readonly #events: PoolEvents
  readonly #slots: Slot[]
  readonly #resolve: (result: PoolResult) => void
  #state: 'running' | 'draining' | 'ended' = 'running'
  #wasReady = false
  #wereAllReady = false
  #failure: StartFailure | undefined
  #replaced = 0
  #lost = 0
  #done: WorkerEnd = { completed: 0, failed: 0, dead: 0, handedBack: 0, unsettled: 0 }

  constructor(options: PoolOptions, events: PoolEvents) {
    this.#options = options
    this.#events = events
    this.#slots = Array.from({ length: options.processes }, newSlot)
    let resolve: (result: PoolResult) => void = () => {}
    this.ended = new Promise((done) => (resolve = done))
    this.#resolve = resolve
  }

  /** Those that are ready now. */
  get workers(): PoolWorker[] {
    return this.#slots.map(({ worker }) => worker).filter((worker) => worker !== undefined)
  }

  start(): void {
    for (const slot of this.#slots) this.#launch(slot)
  }

  /** Ends the pool in order; calling it again changes nothing. */
  drain(): void {
    if (this.#state !== 'running') return
    this.#state = 'draining'
    for (const slot of this.#slots) {
      clearTimeout(slot.timer)
      if (slot.child === undefined) continue
      this.#tell(slot.child, { kind: 'drain' })
      const { child, worker } = slot
      const patienceMs = worker === undefined ? UNREADY_END_MS : this.#options.drainMs + END_MS
      slot.timer = setTimeout(() => this.#giveUpOn(child), patienceMs)
    }
    this.#endIfEmpty()
  }

  /** Ends the pool now. */
  kill(): void {
    this.drain()
    for (const { child } of this.#slots) child?.kill('SIGKILL')
  }

  /** Kills one process, as a crash would; it is replaced. */
  killWorker(pid: number): void {
    this.#childOf(pid)?.kill('SIGKILL')
  }

  /** Sends a message to the handlers of one process. */
  send(pid: number, message: object): void {
    const child = this.#childOf(pid)
    if (child !== undefined) this.#tell(child, message)
  }

  #launch(slot: Slot): void {
    const { output, env } = this.#options
    const sink = output === 'inherit' ? 'inherit' : 'pipe'
    const child = fork(MAIN, ['worker-process'], {
      stdio: ['ignore', sink, sink, 'ipc'],
      env: { ...process.env, ...env },
    })
    Object.assign(slot, { child, failure: undefined, isDone: false })
    if (output !== 'inherit') for (const stream of [child.stdout, child.stderr]) onLines(stream, output)
    child.on('message', (message: WorkerMessage) => this.#heard(slot, child, message))
    // What it has sent last may still be on its way when it has ended.
    child.once('exit', (code, signal) => {
      const gone = () => this.#gone(slot, child, signal ?? `exit code ${code}`)
      if (child.connected) child.once('disconnect', () => setImmediate(gone))
      else setImmediate(gone)
    })
    child.once('error', (error) => {
      if (child.pid === undefined) this.#gone(slot, child, error.message)
    })
    this.#tell(child, { kind: 'start', orders: this.#options.orders } satisfies SupervisorMessage)
  }

  #heard(slot: Slot, child: ChildProcess, message: WorkerMessage): void {
    const pid = child.pid ?? 0
    switch (message.kind) {
      case 'loaded':
        return this.#events.loaded()
      case 'ready':
        slot.worker = { pid, consumer: message.consumer, leaseMs: message.leaseMs }
        slot.readyAtMs = performance.now()
        this.#wasReady = true
        this.#events.ready(slot.worker)
        if (this.#wereAllReady || this.workers.length < this.#slots.length) return
        this.#wereAllReady = true
        return this.#events.allReady()
      case 'failed':
        slot.failure = message.failure
        return
      case 'ended':
        slot.isDone = true
        this.#done = sum(this.#done, message.end)
        return
      default:
        this.#events.message?.(pid, message)
    }
  }

  #gone(slot: Slot, child: ChildProcess, how: string): void {
    if (slot.child !== child) return
    const { worker, failure, isDone } = slot
    const wasWell = worker !== undefined && performance.now() - slot.readyAtMs >= WELL_MS
    slot.child = undefined
    slot.worker = undefined
    clearTimeout(slot.timer)
    if (this.#state !== 'running') {
      if (worker !== undefined && !isDone) this.#lost += 1
      return this.#endIfEmpty()
    }
    const final = worker === undefined ? finalFailure(failure, how, this.#wasReady) : undefined
    if (final !== undefined) {
      this.#failure = final
      return this.drain()
    }
    slot.delayMs = wasWell || slot.delayMs === 0 ? FIRST_DELAY_MS : Math.min(slot.delayMs * 2, MOST_DELAY_MS)
    slot.timer = setTimeout(() => this.#launch(slot), slot.delayMs)
    this.#replaced += 1
    const why = failure?.message ?? (isDone ? 'drained' : how)
    this.#events.replaced({ pid: child.pid ?? 0, why, delayMs: slot.delayMs })
  }

  #giveUpOn(child: ChildProcess): void {
    this.#events.killed?.(child.pid ?? 0)
    child.kill('SIGKILL')
  }

  #endIfEmpty(): void {
    if (this.#state === 'ended' || this.#slots.some(({ child }) => child !== undefined)) return
    this.#state = 'ended'
    this.#resolve({ failure: this.#failure, done: this.#done, replaced: this.#replaced, lost: this.#lost })
  }

  #childOf(pid: number): ChildProcess | undefined {
    return this.#slots.find(({ child }) => child?.pid === pid)?.child
  }

  /** A process that has just ended needs no message; its end is told by 'exit'. */
  #tell(child: ChildProcess, message: object): void {
    if (child.connected) child.send(message, () => {})
  }
}

const MAIN = fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './main.ts' : './main.js', import.meta.url))

function newSlot(): Slot {
  const [child, worker, failure, timer] = [undefined, undefined, undefined, undefined]
  return { child, worker, failure, isDone: false, readyAtMs: 0, delayMs: 0, timer }
}

/** Why the pool must end, of a process that ended before it was ready; undefined if another try may well succeed. */
export function finalFailure(
  failure: StartFailure | undefined,
  how: string,
  wasReady: boolean,
): StartFailure | undefined {
  if (failure !== undefined) return failure.mayPass && wasReady ? undefined : failure
  // Without a word: ended by its own handlers, most likely, and then every time; or killed, which may not happen again.
  if (wasReady || how.startsWith('SIG')) return undefined
  const message = `a worker ended before it was ready (${how}): do the handlers end their process?`
  return { message, exitCode: EXIT.failed, mayPass: false }
}

function sum(a: WorkerEnd, b: WorkerEnd): WorkerEnd {
  return {
    completed: a.completed + b.completed,
    failed: a.failed + b.failed,
    dead: a.dead + b.dead,
    handedBack: a.handedBack + b.handedBack,
    unsettled: a.unsettled + b.unsettled,
  }
}

function onLines(stream: NodeJS.ReadableStream | null, told: (line: string) => void): void {
  let rest = ''
  stream?.setEncoding('utf8')
  stream?.on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = (lines.pop() ?? '').slice(-10_000)
    for (const line of lines) told(line)
  })
}
