import type { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { EXIT, usageError } from '../exit.ts'
import { addLogFlags, logSettings, openLog, type LogFlags } from '../logging.ts'
import { servedAt } from '../metrics-server.ts'
import { onStopSignals } from '../stop-signals.ts'
import { parseCount, parsePort } from '../whole-number.ts'

interface ExporterFlags extends LogFlags {
  readonly port: number
  readonly host?: string
  readonly stream?: readonly string[]
  readonly maxStreams: number
  readonly consumers?: true
  readonly memory?: true
}

const HELP = `
Lag, pending jobs, retries, dead letters and workers of every stream in use and its groups, and how safe the
server is set up; what workers and producers count themselves they serve themselves. One is enough for a
deployment, and several do no harm: queries take max by (stream, group). It only reads, at most every 5 seconds,
however many scrape.

It serves, on all interfaces unless --host says otherwise:
  /metrics   for Prometheus; while Redis is away, of the exporter alone
  /livez     200 while the process answers: never 503 because Redis is away
  /readyz    200 while Redis tells of its streams

It starts without Redis, and tells of it as soon as it is there. SIGTERM or Ctrl-C ends it at once.

It logs to stderr: lines for a person on a terminal, JSON elsewhere. MILLRACE_LOG_LEVEL sets the level too.

Examples:
  $ millrace exporter
  $ millrace exporter --port 9801 --host 127.0.0.1
  $ millrace exporter --stream orders mails --consumers --memory`

export function registerExporter(program: Command, context: CliContext): void {
  const command = program
    .command('exporter')
    .description('serve metrics of all streams and groups for Prometheus')
    .option('--port <port>', 'serve metrics and health on this port', (text) => parsePort('--port', text), 9801)
    .option('--host <address>', 'the address to serve them on (default: all interfaces)')
    .option('--stream <names...>', 'tell of these streams only (default: all in use)')
    .option(
      '--max-streams <count>',
      'tell of so many streams at most, by name',
      (text) => parseCount('--max-streams', text, { most: 5000 }),
      500,
    )
    .option('--consumers', 'tell of the 50 consumers of each group that hold the most')
    .option('--memory', 'tell how much memory each stream takes')
  addLogFlags(command)
    .addHelpText('after', HELP)
    .action((flags: ExporterFlags) => serve(context, flags))
}

async function serve(context: CliContext, flags: ExporterFlags): Promise<void> {
  const { port, host, stream: streams, maxStreams, consumers, memory } = flags
  if (host === '') throw usageError('expected `--host` to be an address, got ""')
  const redis = context.redis()
  const log = await openLog(context, { ...logSettings(context, flags), role: 'exporter', redis })
  const { ExporterServer } = await import('../exporter-server.ts')
  const asked = { redis, maxStreams, consumers: consumers === true, memory: memory === true, logger: log.logger }
  const server = new ExporterServer(streams === undefined ? asked : { ...asked, streams })
  // Before it is said that it listens: whoever waits for that may send a signal at once.
  const stopped = stopSignal(context)
  try {
    const listening = await server.start(port, host)
    log.say(servedAt(listening, host), { port: listening })
    // The first reading is not left to the first scrape: what is wrong is said at once.
    let isEnded = false
    void server.isReady().then((isReady) => {
      if (isReady && !isEnded) log.say('ready')
    })
    const signal = await stopped
    isEnded = true
    log.say(`${signal}: exporter ended`, { signal })
  } finally {
    await server.stop()
  }
  context.finish(EXIT.ok)
}

function stopSignal(context: CliContext): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    onStopSignals(resolve, (exitCode) => context.exitNow(exitCode))
  })
}
