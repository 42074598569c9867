import type { Command } from 'commander'
import type { When } from '../bulk-line.ts'
import type { CliContext } from '../context.ts'
import { parseDelay, parseDuration } from '../duration.ts'
import { usageError } from '../exit.ts'
import { echoInstant, parseDueInstant, type Instant } from '../instant.ts'
import { jsonLine } from '../output.ts'
import type { FileFlags } from '../publish-file.ts'
import { addUniqueFlags, uniqueOf, type UniqueFlags } from '../unique-flags.ts'

interface PublishFlags extends FileFlags, UniqueFlags {
  readonly file?: string
  readonly delay?: number
  readonly at?: Instant
  readonly header?: Readonly<Record<string, string>>
  readonly key?: string
  readonly expiresAt?: Instant
  readonly ttl?: number
}

/** How long one job may take to be in Redis: somebody waits for it. */
const TIMEOUT_MS = 5000

const EXAMPLES = `
A job that is reported as published is in Redis, once. Without data its payload is null.
A file has one job on each line, {"job":"send-receipt","data":{"order":42}}; blank lines are skipped. It may be packed by gzip.
A line may say when its job is due: "delayMs":60000, or "runAt":"2026-11-21T15:30:00Z" or ms since the epoch. Lines that
do not go by \`--delay\` or \`--at\`. A job whose time is over is due now. Where \`--at\` has no zone, it is local time.
A job may have a deadline, "expiresAt" or "ttlMs" of its line: if no run has begun by then, it is dead as expired.
With \`--key\`, or "key" in a line, jobs of the same key run one at a time, in the order in which they were published.
A line may have an "idempotencyToken": a job with the same one of the last 24 hours is not published again.
It may also have "headers":{"tenant":"acme"}, as \`--header\` gives them to one job.

With \`--unique-key\`, or "uniqueKey" and "unique":{"scope":…,"mode":…} in a line, a job is published only while no other
one of the stream has the key: of a scheduled, waiting or running job, until it is settled. It is told whose job has it;
\`--unique-mode replace\` takes a waiting one away, \`debounce\` puts off one that waits for its time.

A file that was interrupted, by Ctrl-C, a kill, a crash or an outage of Redis, goes on with \`--resume\`: each line is published
once, in its order. That it was begun is kept beside it, in .<name>.millrace-publish (elsewhere with \`--state\`), until
it is finished; how far it is Redis knows, for 14 days. What is behind the last published line may be edited
before it is resumed; what is before it must be as it was. What comes from stdin or a pipe cannot be resumed.

Examples:
  $ millrace publish orders send-receipt '{"order":42}'
  $ millrace publish orders send-receipt '{"order":42}' --delay 5m
  $ millrace publish orders send-receipt '{"order":42}' --at 2026-11-21T15:30:00Z
  $ millrace publish orders send-receipt '{"order":42}' --at 10:00
  $ millrace publish orders send-receipt '{"order":42}' --header tenant=acme
  $ millrace publish orders book '{"cents":100}' --key ada
  $ millrace publish orders sync '{"user":7}' --unique-key user:7
  $ millrace publish orders sync --unique-key a --unique-mode debounce --delay 5s
  $ millrace publish orders send-receipt '{"order":42}' --ttl 15m
  $ millrace publish orders --file jobs.ndjson
  $ millrace publish orders --file jobs.ndjson --resume
  $ millrace publish orders --file nightly.ndjson.gz --state nightly.state
  $ generate-jobs | millrace publish orders --file -
  $ seq 1000 | sed 's/.*/{"job":"send-receipt","data":{"order":&}}/' | millrace publish orders --file -`

export function registerPublish(program: Command, context: CliContext): void {
  const command = program
    .command('publish')
    .description('publish one job, or all jobs of a file')
    .argument('<stream>', 'the stream to publish to')
    .argument('[job]', 'the name of the job')
    .argument('[data]', 'its payload, as JSON')
    .option('--file <path>', 'publish the jobs of an NDJSON file, gzip too; - is stdin')
    .option('--resume', 'go on with a file that was interrupted: each line once')
    .option('--state <path>', 'where to keep that the file was begun (default: beside it)')
    .option('--timeout <duration>', 'how long to wait for Redis (default: 5s, for a file 30s)', (text) =>
      parseDuration('--timeout', text),
    )
    .option('--delay <duration>', 'how long the job waits before it is delivered: 30s, 5m, 2h, 7d', (text) =>
      parseDelay('--delay', text),
    )
    .option('--at <time>', 'when the job is delivered: 10:00 is local, 2026-11-21T10:00Z is UTC', (text) =>
      parseDueInstant('--at', text),
    )
    .option('--header <name=text>', "goes with the job, as the handler's `job.headers`; may be repeated", parseHeader)
    .option('--key <key>', 'jobs of one key run one at a time, in the order in which they were published')
    .option('--expires-at <time>', 'when the job is to be started at the latest; then it is dead', (text) =>
      parseDueInstant('--expires-at', text),
    )
    .option('--ttl <duration>', 'the same as a time from now: 30s, 5m, 2h, 7d', (text) =>
      parseDelay('--ttl', text, { minMs: 1 }),
    )

  addUniqueFlags(command)
  command
    .option('--json', 'print what became of the jobs as JSON')
    .addHelpText('after', EXAMPLES)
    .action(async (stream: string, job: string | undefined, data: string | undefined, flags: PublishFlags) => {
      if (flags.delay !== undefined && flags.at !== undefined) {
        throw usageError('expected either `--delay` or `--at`, got both')
      }
      if (flags.expiresAt !== undefined && flags.ttl !== undefined) {
        throw usageError('expected either `--expires-at` or `--ttl`, got both')
      }
      if (flags.at !== undefined) echoInstant(context, '--at', flags.at)
      if (flags.expiresAt !== undefined) echoInstant(context, '--expires-at', flags.expiresAt)
      if (flags.file !== undefined) {
        if (job !== undefined) throw usageError('expected either a job or `--file`, got both')
        if (flags.header !== undefined) throw usageError('expected no `--header` with `--file`: lines have "headers"')
        if (flags.key !== undefined) throw usageError('expected no `--key` with `--file`: lines have "key"')
        if (uniqueOf(flags) !== undefined)
          throw usageError('expected no `--unique-key` with `--file`: each line says its own')
        const { publishFile } = await import('../publish-file.ts')
        const when = whenOf(flags)
        const isSaid = Object.keys(when).length > 0
        await publishFile(context, { stream, path: flags.file, when: isSaid ? when : undefined }, flags)
      } else if (flags.resume === true || flags.state !== undefined) {
        throw usageError(`expected a \`--file\` with \`${flags.resume ? '--resume' : '--state'}\``)
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
  const unique = uniqueOf(flags)
  const payload = data === undefined ? null : parseData(data)
  const redis = context.redis()
  const { Producer } = await import('../../src/index.ts')
  const producer = new Producer({ redis, timeoutMs })
  try {
    const options = { stream, ...whenOf(flags), ...headersOf(flags), ...keyOf(flags), ...unique }
    const { id, outcome, replacedId } = await producer.publish(job, payload, options)
    const counts = { published: 1, failed: 0, unknown: 0, firstId: id, lastId: id }
    // Only where it could be something else, as for a file.
    const told = unique === undefined ? {} : { outcome, ...(replacedId !== undefined && { replacedId }) }
    context.stdout.write(json ? jsonLine({ stream, ...counts, ...told }) : `${id}\n`)
    if (!json && outcome === 'duplicate') context.say(`duplicate: job ${id} has the key, and nothing was published`)
    if (!json && outcome === 'replaced') context.say(`replaced: ${replacedText(id, replacedId)}`)
  } catch (error) {
    const unknown = (error as { published?: unknown }).published === 'unknown' ? 1 : 0
    const counts = { published: 0, failed: 1 - unknown, unknown, firstId: null, lastId: null }
    if (json) context.stdout.write(jsonLine({ stream, ...counts }))
    throw error
  } finally {
    await producer.close({ timeoutMs: 0 })
  }
}

function replacedText(id: string, replacedId: string | undefined): string {
  return replacedId === undefined
    ? `job ${id} has this payload and this time now`
    : `job ${replacedId} gave way, and is not run`
}

function whenOf({ delay, at, expiresAt, ttl }: PublishFlags): When {
  return {
    ...(delay !== undefined && { delayMs: delay }),
    ...(at !== undefined && { runAt: at.ms }),
    ...(expiresAt !== undefined && { expiresAt: expiresAt.ms }),
    ...(ttl !== undefined && { ttlMs: ttl }),
  }
}

function headersOf({ header }: PublishFlags): { headers?: Readonly<Record<string, string>> } {
  return header === undefined ? {} : { headers: header }
}

function keyOf({ key }: PublishFlags): { key?: string } {
  return key === undefined ? {} : { key }
}

/** Whether it is a header that can be is for the producer to say. */
function parseHeader(text: string, others: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  const at = text.indexOf('=')
  if (at < 1) throw usageError('expected `--header` to be a name, = and a text, such as tenant=acme')
  const name = text.slice(0, at)
  if (Object.hasOwn(others, name)) throw usageError(`expected \`--header\` with ${name} once, got it twice`)
  return { ...others, [name]: text.slice(at + 1) }
}

function parseData(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw usageError(`expected the data to be JSON, such as '{"order":42}' or '"text"'; check the shell's quotes`)
  }
}
