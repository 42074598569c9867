import { Option, type Command } from 'commander'
import type { RetryOptions } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { parseDelay, parseDuration } from '../duration.ts'
import { usageError } from '../exit.ts'
import { addLogFlags, logSettings, openLog, type Log, type LogFlags } from '../logging.ts'
import { servedAt } from '../metrics-server.ts'
import type { Pool } from '../pool.ts'
import type { MetricsSnapshot, WorkerOrders } from '../pool-messages.ts'
import type { PoolServer } from '../pool-server.ts'
import { onStopSignals } from '../stop-signals.ts'
import { parseCount, parsePort } from '../whole-number.ts'
import { addStreamFlags, streamOptions, type StreamFlags } from '../worker-streams.ts'

interface WorkerFlags extends LogFlags, StreamFlags {
  readonly group: string
  readonly start?: 'oldest' | 'now'
  readonly concurrency: number
  readonly processes: number
  /** Undefined where the group's own counts: saying nothing and saying the default are not the same. */
  readonly lease?: number
  readonly maxDeliveries?: number
  readonly timeout: number | false
  readonly unknownJobs?: number
  readonly accept?: readonly string[]
  readonly drain: number
  readonly retryAttempts?: number
  readonly retryDelay?: number
  readonly retryBackoff?: 'exponential' | 'linear' | 'fixed'
  readonly retryMaxDelay?: number
  readonly retryFor?: number
  readonly metricsPort?: number
  readonly metricsHost?: string
  readonly streamMetrics?: true
}

const EXAMPLES = `
The handlers file is TypeScript or JavaScript, without a build step. Its default export is a list of
handle(job, function), or an object of functions by job name:

  export default { 'send-receipt': async ({ order }, job) => { … } }
  export const retry = { attempts: 5, delayMs: 2000 }  // optional
  export const tracing = openTelemetry()  // optional: docs/tracing.md
  export const limits = [{ rate: { jobs: 100 } }]  // optional: docs/limits.md
  export const middleware = [(run, next) => …]  // optional: docs/middleware.md

A job whose handler throws is tried again, 25 times in all unless told otherwise, from a second to six hours
apart; then it is a dead letter of its group (millrace dead --help).

Of several streams (--stream repeated) each has its share of the starts while it has
jobs, 1 unless --weight says otherwise; in strict order a stream is served before all
behind it. Slots that one does not use are the others'.

A worker that crashes is replaced after a second; its jobs run elsewhere when their lease is over. SIGTERM or
Ctrl-C lets running jobs finish and hands the others back; a second one ends at once.

With --metrics-port the pool serves, on all interfaces unless --metrics-host says otherwise:
  /metrics   for Prometheus, all processes as one target
  /livez     503 only if a restart would help: never because Redis is away
  /readyz    200 while every worker process runs and reaches Redis
Such a pool also waits for a Redis that cannot be reached when it starts, instead of ending.

It logs to stderr: lines for a person on a terminal, JSON elsewhere. MILLRACE_LOG_LEVEL sets the level too.

Examples:
  $ millrace worker handlers.ts --stream orders
  $ millrace worker handlers.ts --stream orders --group billing --start now --processes 4 --concurrency 50
  $ millrace worker handlers.ts --stream orders --stream mails --weight orders=3
  $ millrace worker handlers.ts --stream urgent --stream orders --priority strict
  $ millrace worker handlers.ts --stream orders --metrics-port 9800 --stream-metrics`

export function registerWorker(program: Command, context: CliContext): void {
  const command = program
    .command('worker')
    .description('run a pool of workers on a stream, or on several')
    .argument('<handlers>', 'the file with the handlers')
  addStreamFlags(command)
    .option('--group <name>', 'the group to be members of', 'main')
    .addOption(
      new Option('--start <where>', "where a further group of the stream starts; the first starts at 'oldest'").choices(
        ['oldest', 'now'],
      ),
    )
    .option('--concurrency <count>', 'jobs that one process runs at once', count('--concurrency', 10_000), 32)
    .option('--processes <count>', 'worker processes', count('--processes', 256), 1)
    .option('--lease <duration>', "how long a dead worker's jobs stay unclaimed (default: 10s)", (text) =>
      parseDuration('--lease', text, { minMs: 500 }),
    )
    .option('--max-deliveries <count>', 'deliveries before a job is dead (default: 3)', count('--max-deliveries', 1000))
    .addOption(
      new Option('--timeout <duration>', "how long one run may take, or 'none'")
        .argParser(parseTimeout)
        .default(30 * 60_000, '30m'),
    )
  addRetryFlags(command)
  command
    .option(
      '--unknown-jobs <duration>',
      'how long a job without a handler waits for one (default: 1h)',
      wait('--unknown-jobs'),
    )
    .option(
      '--accept <pattern>',
      'a job that the group wants, * for any run of characters; repeat it for more (default: all)',
      (pattern: string, before: readonly string[] = []) => [...before, pattern],
    )
    .addOption(
      new Option('--drain <duration>', 'how long running jobs may go on at a stop')
        .argParser(parseDrain)
        .default(25_000, '25s'),
    )
    .option('--metrics-port <port>', 'serve metrics and health on this port', (text) =>
      parsePort('--metrics-port', text),
    )
    .option('--metrics-host <address>', 'the address to serve them on (default: all interfaces)')
    .option('--stream-metrics', "with the stream's lag, pending jobs and dead letters among the metrics")
  addLogFlags(command)
    .addHelpText('after', EXAMPLES)
    .action((handlers: string, flags: WorkerFlags) => superviseWorkers(context, handlers, flags))
  program.command('worker-process', { hidden: true }).action(async () => {
    const { runWorkerProcess } = await import('../worker-process.ts')
    runWorkerProcess()
  })
}

function addRetryFlags(command: Command): void {
  command
    .option(
      '--retry-attempts <count>',
      'runs of a failing job in all (default: 25)',
      count('--retry-attempts', 1_000_000),
    )
    .option('--retry-delay <duration>', 'wait before the second attempt (default: 1s)', wait('--retry-delay'))
    .addOption(
      new Option('--retry-backoff <how>', 'how the waits grow (default: exponential)').choices([
        ...['exponential', 'linear', 'fixed'],
      ]),
    )
    .option('--retry-max-delay <duration>', 'the longest wait (default: 6h)', wait('--retry-max-delay'))
    .option('--retry-for <duration>', 'no attempt later than this after the first failure', wait('--retry-for'))
}

async function superviseWorkers(context: CliContext, handlers: string, flags: WorkerFlags): Promise<void> {
  const redis = context.redis()
  const isMeasured = checkMetricsFlags(flags)
  const { Pool } = await import('../pool.ts')
  const { processes, drain: drainMs } = flags
  const { group } = flags
  const stream = flags.stream.join(',')
  const settings = logSettings(context, flags)
  const log = await openLog(context, { ...settings, role: 'supervisor', about: { stream, group }, redis })
  const { WorkerLog } = await import('../worker-log.ts')
  const told = new WorkerLog(log, flags)
  const orders = { ...ordersOf(handlers, redis, flags), log: settings }
  const options = { processes, orders, drainMs, output: 'inherit' as const, isPatient: isMeasured }
  const events = { ...told.events, measured: (last?: MetricsSnapshot) => server?.ended(last) }
  const pool = new Pool(options, events)
  const server = isMeasured ? await startServer(log, pool, redis, flags) : undefined
  const stopListening = onStopSignals(
    (signal) => {
      told.draining(signal, drainMs)
      pool.drain()
    },
    (exitCode) => {
      pool.kill()
      process.exit(exitCode)
    },
  )
  pool.start()
  try {
    context.finish(told.end(await pool.ended))
  } finally {
    stopListening()
    await server?.stop()
  }
}

/** Whether the pool is to serve metrics. */
function checkMetricsFlags({ metricsPort, metricsHost, streamMetrics }: WorkerFlags): boolean {
  if (metricsHost === '') throw usageError('expected `--metrics-host` to be an address, got ""')
  if (metricsPort !== undefined) return true
  if (metricsHost !== undefined)
    throw usageError('`--metrics-host` says where, and `--metrics-port` must say on which port')
  if (streamMetrics === true) throw usageError('`--stream-metrics` adds to the metrics that `--metrics-port` serves')
  return false
}

async function startServer(log: Log, pool: Pool, redis: string, flags: WorkerFlags): Promise<PoolServer> {
  const { PoolServer } = await import('../pool-server.ts')
  const { stream, metricsPort = 0, metricsHost: host, streamMetrics } = flags
  const told = streamMetrics === true ? { names: stream, redis } : undefined
  const server = new PoolServer(pool, { port: metricsPort, host, streams: told, logger: log.logger })
  const port = await server.start()
  log.say(servedAt(port, host), { port })
  return server
}

function ordersOf(handlers: string, redis: string, flags: WorkerFlags): WorkerOrders {
  const { group, start, concurrency, lease, maxDeliveries, timeout, drain: drainMs } = flags
  const { metricsPort, unknownJobs, accept } = flags
  return {
    handlers,
    isMeasured: metricsPort !== undefined,
    options: {
      redis,
      ...streamOptions(flags),
      group,
      concurrency,
      timeoutMs: timeout,
      drainMs,
      ...(start === undefined ? {} : { startAt: start }),
      // For the supervisor alone, which asks each process how it is.
      ...(metricsPort === undefined ? {} : { healthPort: 0, healthHost: '127.0.0.1' }),
      ...retryOf(flags),
      ...(lease === undefined ? {} : { leaseMs: lease }),
      ...(maxDeliveries === undefined ? {} : { maxDeliveries }),
      ...(unknownJobs === undefined ? {} : { unknownJobMs: unknownJobs }),
      ...(accept === undefined ? {} : { accept }),
    },
  }
}

/** Only what was typed: the rest is for the handlers file, and then for the defaults. */
function retryOf(flags: WorkerFlags): { retry?: RetryOptions } {
  const given: [keyof RetryOptions, unknown][] = [
    ['attempts', flags.retryAttempts],
    ['delayMs', flags.retryDelay],
    ['backoff', flags.retryBackoff],
    ['maxDelayMs', flags.retryMaxDelay],
    ['retryForMs', flags.retryFor],
  ]
  const typed = given.filter(([, value]) => value !== undefined)
  return typed.length === 0 ? {} : { retry: Object.fromEntries(typed) }
}

function count(option: string, most: number): (text: string) => number {
  return (text) => parseCount(option, text, { most })
}

function wait(option: string): (text: string) => number {
  return (text) => parseDelay(option, text)
}

function parseTimeout(text: string): number | false {
  return text === 'none' ? false : parseDuration('--timeout', text)
}

function parseDrain(text: string): number {
  return /^0(ms|s|m|h)?$/.test(text) ? 0 : parseDuration('--drain', text)
}
