import type { Registry } from 'prom-client'
import { Worker, type Logger, type RetryOptions, type Tracing } from '../src/index.ts'
import { codeOf, EXIT, exitCodeOf, usageError } from './exit.ts'
import { loadHandlers } from './handlers.ts'
import { openLog, type Log, type LogSettings } from './logging.ts'
import type { StartFailure, SupervisorMessage, WorkerMessage, WorkerOrders } from './pool-messages.ts'

/**
 * One process of a worker pool: takes its orders from the supervisor, runs one worker, and drains when it is told to, when
 * it gets a SIGTERM, or when the supervisor is gone, however that ended.
 *
 * A SIGINT is not for us: a Ctrl-C goes to every process of the terminal, and the supervisor tells us what it means.
 */
export function runWorkerProcess(): void {
  if (process.send === undefined) throw usageError('a worker process is started by `millrace worker`, not by hand')
  const worker = new WorkerProcess()
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => void worker.drain())
  process.on('disconnect', () => void worker.drain())
  process.on('message', (message: SupervisorMessage) => {
    if (message.kind === 'start') void worker.start(message.orders)
    if (message.kind === 'measure') void worker.tellMetrics()
    if (message.kind === 'drain') void worker.drain()
  })
}

class WorkerProcess {
  #worker: Worker | undefined
  #tracing: Tracing | undefined
  #registry: Registry | undefined
  #log: Log | undefined
  #isReady = false
  #isEnding = false

  async start(orders: WorkerOrders): Promise<void> {
    try {
      if (orders.log !== undefined) this.#log = await openWorkerLog(orders, orders.log)
      if (orders.isMeasured === true) this.#registry = await makeRegistry()
      const logger = this.#log && orders.log && withoutSaid(this.#log, orders.log)
      const { worker, tracing } = await makeWorker(orders, this.#registry, logger)
      this.#worker = worker
      this.#tracing = tracing
      void tell({ kind: 'loaded' })
      await worker.start()
      this.#isReady = true
      void tell({
        kind: 'ready',
        consumer: worker.consumer,
        leaseMs: worker.groupSettings.leaseMs,
        healthPort: worker.healthAddress?.port,
      })
    } catch (error) {
      if (this.#isEnding) return
      this.#isEnding = true
      const failure = failureOf(error)
      await this.tellMetrics()
      await tell({ kind: 'failed', failure })
      process.exit(failure.exitCode)
    }
  }

  /** Every scrape asks for them, and the end tells them once more. */
  async tellMetrics(): Promise<void> {
    if (this.#registry === undefined) return
    const metrics = await this.#registry.getMetricsAsJSON().catch((error: unknown) => {
      this.#log?.say('the metrics of this process cannot be read', { error: String(error) }, 'error')
    })
    // What was told before stays in the sum of the pool: counters would go back to 0 without it.
    if (metrics === undefined) return
    for (const metric of metrics) {
      // One process whose loop stands still must not be hidden by the mean over those that are well.
      if (metric.name.startsWith('nodejs_eventloop_lag')) metric.aggregator = 'max'
    }
    await tell({ kind: 'measured', metrics })
  }

  /** Ends the process, whatever the handlers have left open: database connections, timers. */
  async drain(): Promise<void> {
    if (this.#isEnding) return
    this.#isEnding = true
    // Before it is ready a worker holds nothing.
    if (this.#worker === undefined || !this.#isReady) process.exit(EXIT.ok)
    const { handedBack, unsettled } = await this.#worker.stop()
    const { completed, failed, cancelled, skipped, dead } = this.#worker.counts
    await this.tellMetrics()
    await flushed(this.#tracing)
    await tell({ kind: 'ended', end: { completed, failed, cancelled, skipped, dead, handedBack, unsettled } })
    process.exit(unsettled > 0 ? EXIT.failed : EXIT.ok)
  }
}

/** What the supervisor says of its workers in words, once for all of them: a person need not read it twice. */
const SAID = new Set(['worker started', 'worker draining', 'worker stopped'])

function withoutSaid({ logger }: Log, { format, level }: LogSettings): Logger {
  if (format === 'json' || level === 'debug' || level === 'trace') return logger
  return { ...logger, info: (fields, message) => SAID.has(message) || logger.info(fields, message) }
}

/** With it, what nobody catches is a line of the log like any other, and not a page of text among JSON. */
async function openWorkerLog({ options }: WorkerOrders, settings: LogSettings): Promise<Log> {
  const { redis, stream, group } = options
  // Of several streams each line says which: what all lines share is left out for a person.
  const about = stream === undefined ? { group } : { stream, group }
  const log = await openLog(process, { ...settings, role: 'worker', about, redis })
  process.on('uncaughtException', (error: unknown, origin) => {
    // Handlers that listen themselves decide what it means.
    if (process.listenerCount('uncaughtException') > 1) return
    const err = error instanceof Error ? error : new Error(textOf(error))
    log.logger.error({ origin, err }, 'an error was thrown that nobody caught: this process ends')
    process.exit(EXIT.failed)
  })
  return log
}

/** What is thrown may be anything, also what cannot be made a text. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown)
  } catch {
    return '(what was thrown has no text)'
  }
}

/** How long the spans of the last jobs may take to be sent. */
const FLUSH_MS = 2000

/** Spans wait to be sent in batches, and the process is about to end. */
async function flushed(tracing: Tracing | undefined): Promise<void> {
  if (tracing?.flush === undefined) return
  const sent = Promise.resolve().then(() => tracing.flush?.())
  const late = new Promise<void>((resolve) => setTimeout(resolve, FLUSH_MS))
  await Promise.race([sent, late]).catch((error: unknown) => {
    process.stderr.write(`the last spans could not be sent: ${String(error)}\n`)
  })
}

async function makeRegistry(): Promise<Registry> {
  const { collectDefaultMetrics, Registry } = await import('prom-client')
  const register = new Registry()
  collectDefaultMetrics({ register })
  return register
}

interface Made {
  readonly worker: Worker
  readonly tracing: Tracing | undefined
}

async function makeWorker(
  { handlers: file, options }: WorkerOrders,
  registry: Registry | undefined,
  logger: Logger | undefined,
): Promise<Made> {
  const { handlers, retry, tracing, limits, cron, middleware } = await loadHandlers(file)
  try {
    const told = {
      ...(tracing !== undefined && { tracing }),
      ...(limits !== undefined && { limits }),
      ...(cron && { cron }),
    }
    const own = { ...(registry && { registry }), ...(logger && { logger }), ...told }
    // What is typed counts before what is written in the file.
    const both = isPlain(retry) ? { ...retry, ...options.retry } : (retry ?? options.retry)
    const worker = new Worker({ ...options, handlers, ...own, ...(both === undefined ? {} : { retry: both }) })
    for (const layer of middleware) worker.use(layer)
    return { worker, tracing }
  } catch (error) {
    const { message } = error as Error
    const isOfFile = codeOf(error) === 'ERR_HANDLERS' || OF_FILE.test(message)
    if (!isOfFile) throw error
    throw usageError(`${file}: ${message}`)
  }
}

/** What the file says, and no flag. */
const OF_FILE = /^expected (`tracing`|a middleware)|`limits|limits\[|`cron|cron\[|\bschedule\b/

function isPlain(retry: unknown): retry is RetryOptions {
  return typeof retry === 'object' && retry !== null && !Array.isArray(retry)
}

function failureOf(error: unknown): StartFailure {
  const message = error instanceof Error ? error.message : String(error)
  return {
    // The library speaks of its option, and who reads this has typed a flag.
    message: message.replace("startAt 'oldest' or 'now'", '--start oldest or --start now'),
    exitCode: exitCodeOf(error),
    mayPass: codeOf(error) === 'ERR_REDIS_UNREACHABLE',
  }
}

/** Resolves when the message is on its way; a supervisor that is gone needs no message. */
function tell(message: WorkerMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected) process.send?.(message, undefined, undefined, () => resolve())
    else resolve()
  })
}
