import { fork, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type {
  MetricsSnapshot,
  StartFailure,
  SupervisorMessage,
  WorkerEnd,
  WorkerMessage,
  WorkerOrders,
} from './pool-messages.ts'

/** What others may know of a worker process that is ready. */
export interface PoolWorker {
  readonly pid: number
  readonly consumer: string
  readonly leaseMs: number
  /** Where its health is told, on the loopback interface. */
  readonly healthPort: number | undefined
}

export interface ProcessOptions {
  readonly orders: WorkerOrders
  /** What the process prints: goes where ours goes, or is told line by line. */
  readonly output: 'inherit' | ((line: string) => void)
  /** Added to the environment. */
  readonly env?: NodeJS.ProcessEnv
}

export interface ProcessEvents {
  readonly loaded: () => void
  readonly ready: (worker: PoolWorker) => void
  /** Once, after everything else that it had to say. `how` is the signal or the exit code. */
  readonly gone: (how: string) => void
  /** Something that its handlers sent to us. */
  readonly message: (message: unknown) => void
}

/** One worker process as its supervisor sees it: this very program, started again with a hidden command. */
export class PoolProcess {
  /** Set while it is ready. */
  worker: PoolWorker | undefined
  /** Why it could not start, if it said so. */
  failure: StartFailure | undefined
  /** What it did, if it drained. */
  end: WorkerEnd | undefined
  /** What it counted when it was last asked. */
  metrics: MetricsSnapshot | undefined
  #isLoaded = false
  readonly #onMeasured = new Set<() => void>()
  readonly #child: ChildProcess
  readonly #events: ProcessEvents
  #isGone = false

  constructor({ orders, output, env }: ProcessOptions, events: ProcessEvents) {
    this.#events = events
    const sink = output === 'inherit' ? 'inherit' : 'pipe'
    const child = fork(MAIN, ['worker-process'], {
      stdio: ['ignore', sink, sink, 'ipc'],
      env: { ...process.env, ...env },
    })
    this.#child = child
    if (output !== 'inherit') for (const stream of [child.stdout, child.stderr]) onLines(stream, output)
    child.on('message', (message: WorkerMessage) => this.#heard(message))
    child.once('exit', (code, signal) => {
      // What it has sent last may still be on its way when it has ended.
      const gone = () => setImmediate(() => this.#gone(signal ?? `exit code ${code}`))
      if (child.connected) child.once('disconnect', gone)
      else gone()
    })
    child.once('error', (error) => {
      if (child.pid === undefined) this.#gone(error.message)
    })
    this.send({ kind: 'start', orders } satisfies SupervisorMessage)
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  drain(): void {
    this.send({ kind: 'drain' } satisfies SupervisorMessage)
  }

  /** Brings `metrics` up to date. If the process does not answer in time, they stay what it last told. */
  async measure(timeoutMs: number): Promise<void> {
    if (!this.#isLoaded || this.#isGone) return
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#onMeasured.delete(done)
        resolve()
      }
      const timer = setTimeout(done, timeoutMs)
      this.#onMeasured.add(done)
      this.send({ kind: 'measure' } satisfies SupervisorMessage)
    })
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  /** A process that has just ended needs no message: its end is told. */
  send(message: object): void {
    if (this.#child.connected) this.#child.send(message, () => {})
  }

  #heard(message: WorkerMessage): void {
    switch (message.kind) {
      case 'loaded':
        this.#isLoaded = true
        return this.#events.loaded()
      case 'ready': {
        const { consumer, leaseMs, healthPort } = message
        this.worker = { pid: this.pid, consumer, leaseMs, healthPort }
        return this.#events.ready(this.worker)
      }
      case 'measured':
        this.metrics = message.metrics
        for (const told of this.#onMeasured) told()
        return
      case 'failed':
        this.failure = message.failure
        return
      case 'ended':
        this.end = message.end
        return
      default:
        this.#events.message(message)
    }
  }

  #gone(how: string): void {
    if (this.#isGone) return
    this.#isGone = true
    for (const told of this.#onMeasured) told()
    this.#events.gone(how)
  }
}

const MAIN = fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './main.ts' : './main.js', import.meta.url))

function onLines(stream: NodeJS.ReadableStream | null, told: (line: string) => void): void {
  let rest = ''
  stream?.setEncoding('utf8')
  stream?.on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = (lines.pop() ?? '').slice(-10_000)
    for (const line of lines) told(line)
  })
}
