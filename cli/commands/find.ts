import type { Command } from 'commander'
import type { Found, FindOptions, Range } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { CliError, EXIT } from '../exit.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { withInspector } from '../inspector.ts'
import { countText, jsonLine, momentText, plural, printable } from '../output.ts'
import { Progress } from '../progress.ts'
import { RANGE_HELP, rangeOf, rangeWords, withRangeFlags, type RangeFlags } from '../range.ts'
import { exitCodeOfSignal, onStopSignals } from '../stop-signals.ts'
import { parseCount } from '../whole-number.ts'
import { clipped } from '../width.ts'

interface FindFlags extends RangeFlags {
  readonly job?: string
  readonly text?: string
  readonly where?: string
  readonly limit?: number
  readonly scan?: number
  readonly after?: string
  readonly newest?: true
  readonly json?: true
}

const HELP = `
Looks through the entries of a stream, the oldest first, until it has found as many jobs as --limit says, or has looked at
as many entries as --scan says; then it prints the command that goes on. Expressions are CEL (cel.dev) over id, job, data
and headers. The exit code is 4 if there is no such job in all that was asked for.
${RANGE_HELP}

Examples:
  $ millrace find orders --from -15m --job send-receipt
  $ millrace find orders --text ada@example.com --newest
  $ millrace find orders --from 10:00 --to 10:30 --where 'data.order > 40 && job != "audit"'
  $ millrace find orders --job send-receipt --limit 1000 --json | jq -r '.jobs[].id'`

const MOST_FOUND = 10_000
const LONGEST_LINE = 400

export function registerFind(program: Command, context: CliContext): void {
  withRangeFlags(program.command('find').description('find jobs by time, name, payload or an expression'))
    .argument('<stream>', 'the stream')
    .option('--job <name>', 'jobs of this name')
    .option('--text <text>', 'jobs whose payload has this text in it, letter for letter')
    .option('--where <expression>', "jobs for which this holds, such as 'data.order > 40'")
    .option('--limit <count>', 'how many jobs at most (default: 20)', (text) =>
      parseCount('--limit', text, { most: MOST_FOUND }),
    )
    .option('--scan <count>', 'how many entries to look at, at most (default: 100000)', (text) =>
      parseCount('--scan', text, { most: 1e15 - 1 }),
    )
    .option('--after <entry>', 'only what lies behind this entry, to go on with')
    .option('--newest', 'the newest first')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(async (stream: string, flags: FindFlags, command: Command) => {
      await withInspector(context, async (inspector) => {
        const asked = { stream, flags, range: rangeOf(context, flags), command }
        const { found, signal } = await search(context, asked, (options) => inspector.find(stream, options))
        report(context, asked, found)
        if (signal !== undefined) context.finish(exitCodeOfSignal(signal))
      })
    })
}

interface Asked {
  readonly stream: string
  readonly flags: FindFlags
  readonly range: Range
  readonly command: Command
}

/** With progress on a terminal; Ctrl-C ends it, and what was found until then is printed. */
async function search(
  context: CliContext,
  { flags, range }: Asked,
  find: (options: FindOptions) => Promise<Found>,
): Promise<{ found: Found; signal: NodeJS.Signals | undefined }> {
  const stopping = new AbortController()
  const progress = new Progress(context.stderr, 'entries')
  let interruption: NodeJS.Signals | undefined
  const stopListening = onStopSignals(
    (signal) => {
      interruption = signal
      stopping.abort()
    },
    (exitCode) => context.exitNow(exitCode),
  )
  const { job, text, where, limit, scan, after, newest } = flags
  try {
    const found = await find({
      ...range,
      ...(job === undefined ? {} : { job }),
      ...(text === undefined ? {} : { text }),
      ...(where === undefined ? {} : { where }),
      ...(limit === undefined ? {} : { limit }),
      ...(scan === undefined ? {} : { mostScanned: scan }),
      ...(after === undefined ? {} : { after }),
      ...(newest === undefined ? {} : { newest }),
      signal: stopping.signal,
      onProgress: ({ scanned }) => progress.update(scanned, undefined),
    })
    return { found, signal: interruption }
  } finally {
    progress.end()
    stopListening()
  }
}

/** @throws CliError if there is no such job in all that was asked for. */
function report(context: CliContext, asked: Asked, found: Found): void {
  const { jobs, next, interrupted } = found
  if (asked.flags.json === true) {
    context.stdout.write(
      jsonLine({ stream: asked.stream, ...found, command: next === null ? null : goOn(asked, next) }),
    )
  } else if (jobs.length > 0) {
    context.stdout.write(`${jobLines(context, found).join('\n')}\n`)
  }
  for (const line of remarksOn(asked, found)) context.say(printable(line))
  if (jobs.length === 0 && next === null && !interrupted) {
    throw new CliError(`no such job in ${lookedAtText(found)} of ${asked.stream}`, EXIT.notFound)
  }
}

function remarksOn(asked: Asked, found: Found): string[] {
  const { next, unclear, scanned, about, jobs } = found
  const remarks: string[] = []
  if (unclear.count > 0) {
    const first = `${unclear.id ?? ''}: ${unclear.why ?? ''}`
    remarks.push(`the expression could not tell of ${plural(unclear.count, 'job')}, which are left out (${first})`)
  }
  if (next !== null) {
    const of = about > scanned ? ` of about ${countText(about)}` : ''
    const none = jobs.length === 0 ? 'found none so far: ' : ''
    const looked = `${none}looked at ${countText(scanned)}${of} ${scanned === 1 ? 'entry' : 'entries'}${spanOf(found)}`
    remarks.push(`${looked}; to go on: ${goOn(asked, next)}`)
  } else if (jobs.length > 0) {
    remarks.push(`looked at ${lookedAtText(found)}`)
  }
  return remarks
}

function lookedAtText(found: Found): string {
  return `${plural(found.scanned, 'entry', 'entries')}${spanOf(found)}`
}

function spanOf({ fromId, toId }: Found): string {
  if (fromId === null || toId === null) return ''
  const moment = (id: string) => momentText(Number(id.slice(0, id.indexOf('-'))))
  return `, ${moment(fromId)} to ${moment(toId)}`
}

function goOn({ stream, flags, range, command }: Asked, next: string): string {
  const { job, text, where, limit, scan, newest } = flags
  return commandLine(
    command,
    ...['find', stream, ...rangeWords('--from', range.from), ...rangeWords('--to', range.to)],
    ...(job === undefined ? [] : ['--job', job]),
    // A text may begin with a dash.
    ...(text === undefined ? [] : [`--text=${text}`]),
    ...(where === undefined ? [] : [`--where=${where}`]),
    ...(limit === undefined ? [] : ['--limit', String(limit)]),
    ...(scan === undefined ? [] : ['--scan', String(scan)]),
    ...(newest === undefined ? [] : ['--newest']),
    ...['--after', next],
  )
}

const COLUMNS: readonly FittingColumn[] = [
  { title: 'id' },
  { title: 'published', spare: 1 },
  { title: 'job', least: 12 },
  { title: 'payload', least: 24 },
]

/** Payloads are cut to the width of a terminal; where there is none, to a length that a line can have. */
function jobLines(context: CliContext, { jobs }: Found): string[] {
  const rows = jobs.map(({ id, publishedMs, job, replayOf, preview }) => {
    const copy = replayOf === null ? '' : `(copy of ${replayOf}) `
    return [id, momentText(publishedMs), job ?? '-', `${copy}${preview ?? '-'}`]
  })
  const lines = fittingTable(context.stdout, COLUMNS, rows)
  return context.stdout.isTTY ? lines : lines.map((line) => clipped(line, LONGEST_LINE))
}
