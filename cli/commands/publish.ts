import type { Command } from 'commander'
import { open } from 'node:fs/promises'
import type { BulkPublish, When } from '../bulk-publish.ts'
import type { CliContext } from '../context.ts'
import { parseDelay, parseDuration } from '../duration.ts'
import { CliError, EXIT, exitCodeOf, usageError } from '../exit.ts'
import { echoInstant, parseDueInstant, type Instant } from '../instant.ts'
import { LineError } from '../ndjson.ts'
import { countText, jsonLine, plural, spanText } from '../output.ts'
import { Progress } from '../progress.ts'
import { exitCodeOfSignal, onStopSignals } from '../stop-signals.ts'

interface PublishFlags {
  readonly file?: string
  readonly timeout?: number
  readonly delay?: number
  readonly at?: Instant
  readonly json?: boolean
}

/** How long one job may take to be in Redis: somebody waits for a single one; a file should survive a failover. */
const TIMEOUT_MS = 5000
const FILE_TIMEOUT_MS = 30_000

const EXAMPLES = `
A job that is reported as published is in Redis, once. Without data its payload is null.
A file has one job on each line, {"job":"send-receipt","data":{"order":42}}; blank lines are skipped.
A line may say when its job is due: "delayMs":60000, or "runAt":"2026-11-21T15:30:00Z" or ms since the epoch. Lines that
do not go by \`--delay\` or \`--at\`. A job whose time is over is due now. Where \`--at\` has no zone, it is local time.

Examples:
  $ millrace publish orders send-receipt '{"order":42}'
  $ millrace publish orders send-receipt '{"order":42}' --delay 5m
  $ millrace publish orders send-receipt '{"order":42}' --at 2026-11-21T15:30:00Z
  $ millrace publish orders send-receipt '{"order":42}' --at 10:00
  $ millrace publish orders --file jobs.ndjson
  $ generate-jobs | millrace publish orders --file -
  $ seq 1000 | sed 's/.*/{"job":"send-receipt","data":{"order":&}}/' | millrace publish orders --file -`

export function registerPublish(program: Command, context: CliContext): void {
  program
    .command('publish')
    .description('publish one job, or all jobs of a file')
    .argument('<stream>', 'the stream to publish to')
    .argument('[job]', 'the name of the job')
    .argument('[data]', 'its payload, as JSON')
    .option('--file <path>', 'publish the jobs of an NDJSON file; - is stdin')
    .option('--timeout <duration>', 'how long one job may take to be in Redis (default: 5s, for a file 30s)', (text) =>
      parseDuration('--timeout', text),
    )
    .option('--delay <duration>', 'how long the job waits before it is delivered: 30s, 5m, 2h, 7d', (text) =>
      parseDelay('--delay', text),
    )
    .option('--at <time>', 'when the job is delivered: 10:00 is local, 2026-11-21T10:00Z is UTC', (text) =>
      parseDueInstant('--at', text),
    )
    .option('--json', 'print what became of the jobs as JSON')
    .addHelpText('after', EXAMPLES)
    .action(async (stream: string, job: string | undefined, data: string | undefined, flags: PublishFlags) => {
      if (flags.delay !== undefined && flags.at !== undefined) {
        throw usageError('expected either `--delay` or `--at`, got both')
      }
      if (flags.at !== undefined) echoInstant(context, '--at', flags.at)
      if (flags.file !== undefined) {
        if (job !== undefined) throw usageError('expected either a job or `--file`, got both')
        await publishFile(context, stream, flags.file, flags)
      } else if (job !== undefined) {
        await publishOne(context, { stream, job, data }, flags)
      } else {
        throw usageError('expected the name of a job, or `--file`, got neither')
      }
    })
}

async function publishOne(
  context: CliContext,
  { stream, job, data }: { stream: string; job: string; data: string | undefined },
  { timeout: timeoutMs = TIMEOUT_MS, json, ...flags }: PublishFlags,
): Promise<void> {
  const payload = data === undefined ? null : parseData(data)
  const redis = context.redis()
  const { Producer } = await import('../../src/index.ts')
  const producer = new Producer({ redis, timeoutMs })
  try {
    const { id } = await producer.publish(job, payload, { stream, ...whenOf(flags) })
    const counts = { published: 1, failed: 0, unknown: 0, firstId: id, lastId: id }
    context.stdout.write(json ? jsonLine({ stream, ...counts }) : `${id}\n`)
  } catch (error) {
    const unknown = (error as { published?: unknown }).published === 'unknown' ? 1 : 0
    const counts = { published: 0, failed: 1 - unknown, unknown, firstId: null, lastId: null }
    if (json) context.stdout.write(jsonLine({ stream, ...counts }))
    throw error
  } finally {
    await producer.close({ timeoutMs: 0 })
  }
}

function whenOf({ delay, at }: PublishFlags): When {
  if (delay !== undefined) return { delayMs: delay }
  return at === undefined ? {} : { runAt: at.ms }
}

function parseData(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw usageError(`expected the data to be JSON, such as '{"order":42}' or '"text"'; check the shell's quotes`)
  }
}

async function publishFile(context: CliContext, stream: string, path: string, flags: PublishFlags): Promise<void> {
  const { input, size } = await openInput(context, path)
  const redis = context.redis()
  const [{ Producer }, { BulkPublish }] = await Promise.all([
    import('../../src/index.ts'),
    import('../bulk-publish.ts'),
  ])
  const producer = new Producer({ redis })
  const progress = new Progress(context.stderr)
  const startedMs = performance.now()
  const bulk = new BulkPublish(producer, stream, {
    timeoutMs: flags.timeout ?? FILE_TIMEOUT_MS,
    when: whenOf(flags),
    // The next line may never come (`tail -f`): what failed is to be told now.
    failed: () => input.destroy(),
    told: () => progress.update(bulk.counts.published, size === undefined ? undefined : bulk.readBytes / size),
  })
  let interruption: NodeJS.Signals | undefined
  let slowEnd: NodeJS.Timeout | undefined
  const stopListening = onStopSignals(
    (signal) => {
      interruption = signal
      bulk.stop()
      input.destroy()
      slowEnd = setTimeout(() => {
        progress.end()
        context.say(`waiting for Redis to confirm the last ${plural(bulk.inFlight, 'job')}; Ctrl-C again ends at once`)
      }, 500)
    },
    (exitCode) => context.exitNow(exitCode),
  )
  try {
    await bulk.run(input)
  } catch (error) {
    throw new CliError(`cannot read ${nameOf(path)}: ${(error as Error).message}${soFar(bulk)}`, EXIT.failed)
  } finally {
    stopListening()
    clearTimeout(slowEnd)
    progress.end()
    await producer.close({ timeoutMs: 0 })
    if (flags.json) context.stdout.write(jsonLine({ stream, ...bulk.counts }))
  }
  report(context, { stream, bulk, interruption, seconds: (performance.now() - startedMs) / 1000 })
}

interface Report {
  readonly stream: string
  readonly bulk: BulkPublish
  readonly interruption: NodeJS.Signals | undefined
  readonly seconds: number
}

/** Says what became of the jobs. @throws CliError if not all of them were published. */
function report(context: CliContext, { stream, bulk, interruption, seconds }: Report): void {
  const { counts, problem } = bulk
  const isBegun = counts.published > 0 || counts.unknown > 0
  if (problem instanceof LineError) {
    throw new CliError(`${problem.message}${soFar(bulk)}`, isBegun ? EXIT.partly : EXIT.failed)
  }
  if (problem !== undefined) {
    const told = isBegun ? `${problem.message}${soFar(bulk)}` : problem.message
    throw new CliError(told, isBegun ? EXIT.partly : exitCodeOf(problem))
  }
  const done = `published ${plural(counts.published, 'job')} to ${stream}`
  if (interruption !== undefined) {
    context.say(`interrupted: ${done}; the rest was not read`)
    context.finish(exitCodeOfSignal(interruption))
    return
  }
  const rate = seconds > 0 ? ` (${countText(counts.published / seconds)}/s)` : ''
  context.say(`${done} in ${spanText(seconds)}${rate}`)
}

function soFar({ counts }: BulkPublish): string {
  const fates = [`${plural(counts.published, 'job')} ${counts.published === 1 ? 'was' : 'were'} published`]
  if (counts.failed > 0) fates.push(`${countText(counts.failed)} failed`)
  if (counts.unknown > 0) fates.push(`${countText(counts.unknown)} may be in Redis or not`)
  return `; ${fates.join(', ')}`
}

async function openInput(
  context: CliContext,
  path: string,
): Promise<{ input: NodeJS.ReadableStream & { destroy(): void } & AsyncIterable<Buffer>; size: number | undefined }> {
  if (path === '-') {
    const { stdin } = context
    if (stdin.isTTY) context.say('reading jobs from the terminal, one a line; Ctrl-D ends')
    return { input: stdin, size: undefined }
  }
  try {
    // Opened here and not by the stream: its error would come when nobody listens yet.
    const file = await open(path)
    const found = await file.stat()
    if (found.isDirectory()) {
      await file.close()
      throw new Error('it is a directory')
    }
    return { input: file.createReadStream(), size: found.isFile() ? found.size : undefined }
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    throw usageError(`cannot read ${path}: ${isMissing ? 'there is no such file' : (error as Error).message}`)
  }
}

function nameOf(path: string): string {
  return path === '-' ? 'stdin' : path
}
