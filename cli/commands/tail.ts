import type { Command } from 'commander'
import type { TailEntry, TailNotice } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { withInspector } from '../inspector.ts'
import { countText, instantText, jsonLine, momentText, printable } from '../output.ts'
import { parseRangeEnd, RANGE_HELP, rangeOf, type RangeEnd } from '../range.ts'
import { onStopSignals } from '../stop-signals.ts'
import { parseCount } from '../whole-number.ts'
import { clipped, fitted } from '../width.ts'

interface TailFlags {
  readonly lines?: number
  readonly follow?: boolean
  readonly job?: string
  readonly text?: string
  readonly where?: string
  readonly from?: RangeEnd
  readonly json?: boolean
}

const HELP = `
A line is the time of publishing (UTC), the job's id, its name and the beginning of its payload; --json has all of it, one
document a line. Looking back for entries that match ends after 100,000 entries, or 200 MiB of them.
${RANGE_HELP.trim().replace(/ ?--from is part(.|\n)*$/, '')}

Examples:
  $ millrace tail orders
  $ millrace tail orders -f --job send-receipt --where 'data.order > 40'
  $ millrace tail orders -n 100 --text '"customer":7'
  $ millrace tail orders -f --json | jq -r '.payload'`

export function registerTail(program: Command, context: CliContext): void {
  program
    .command('tail')
    .description('show the newest entries of a stream, and follow what comes')
    .argument('<stream>', 'the stream')
    .option('-n, --lines <count>', 'how many of the newest that match (default: 10, with --from all)', (text) =>
      text === '0' ? 0 : parseCount('--lines', text, { most: 10_000 }),
    )
    .option('-f, --follow', 'go on with what is published, until Ctrl-C')
    .option('--job <name>', 'jobs of this name')
    .option('--text <text>', 'payloads with this in their text, letter for letter')
    .option('--where <expression>', `jobs that it is true for, such as 'data.order > 40'`)
    .option('--from <time|entry>', 'from this time or entry on', (text) => parseRangeEnd('--from', text))
    .option('--json', 'print JSON, one document a line')
    .addHelpText('after', HELP)
    .action(async (stream: string, flags: TailFlags) => {
      const ended = new AbortController()
      const stopListening = onStopSignals(
        () => ended.abort(),
        (exitCode) => context.exitNow(exitCode),
      )
      try {
        await tail(context, { stream, flags, signal: ended.signal })
      } finally {
        stopListening()
      }
    })
}

async function tail(
  context: CliContext,
  { stream, flags, signal }: { stream: string; flags: TailFlags; signal: AbortSignal },
): Promise<void> {
  const { lines, follow, job, text, where, from } = flags
  const range = rangeOf(context, from === undefined ? {} : { from })
  await withInspector(context, async (inspector) => {
    const entries = inspector.tail(stream, {
      ...(lines === undefined ? {} : { last: lines }),
      ...(range.from === undefined ? {} : { from: range.from }),
      ...(job === undefined ? {} : { job }),
      ...(text === undefined ? {} : { text }),
      ...(where === undefined ? {} : { where }),
      follow: follow === true,
      signal,
      onNotice: (notice) => context.say(printable(noticeText(stream, notice))),
    })
    let count = 0
    for await (const entry of entries) {
      count += 1
      const line = flags.json ? jsonLine({ stream, ...entry }) : `${entryLine(entry, context.stdout)}\n`
      // A reader that is slower than the stream must not make us hold all of it.
      if (!context.stdout.write(line)) await drained(context.stdout, signal)
    }
    if (count === 0 && !signal.aborted && follow !== true) {
      const isAll = job === undefined && text === undefined && where === undefined && from === undefined && lines !== 0
      context.say(isAll ? `stream ${stream} has no entries` : `no entry of ${stream} matches`)
    }
  })
}

/** One line that a terminal does not break. */
export function entryLine(entry: TailEntry, stdout: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>): string {
  const { publishedMs, jobId, job, payload } = entry
  const columns = stdout.isTTY ? Math.max(40, (stdout.columns || 80) - 1) : WIDTH_OF_A_PIPE
  const time = columns < 110 ? instantText(publishedMs).slice(11) : instantText(publishedMs)
  // More of a payload than the line can hold need not be looked at.
  const text = payload === null ? '-' : printable(payload.slice(0, columns * 4))
  return clipped(`${time}  ${jobId}  ${fitted(job ?? '(no job)', Math.max(14, job?.length ?? 0))}  ${text}`, columns)
}

const WIDTH_OF_A_PIPE = 240

function noticeText(stream: string, notice: TailNotice): string {
  switch (notice.kind) {
    case 'bound':
      return `looked at the newest ${countText(notice.scanned)} entries of ${stream}, back to ${notice.oldestId}, and no further`
    case 'away':
      return `${notice.error.message}; trying again`
    case 'back':
      return 'Redis is back'
    case 'lost':
      return `entries behind ${notice.afterId} may have been removed before they were read: the stream begins at ${notice.oldestId} now (${momentText(Number.parseInt(notice.oldestId))})`
    case 'unclear':
      return `left out, as may be others: entry ${notice.entryId}, for which --where could not tell: ${notice.why}`
  }
}

function drained(stdout: NodeJS.WriteStream, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      stdout.off('drain', done)
      stdout.off('close', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    stdout.on('drain', done)
    stdout.on('close', done)
    signal.addEventListener('abort', done)
    if (signal.aborted) done()
  })
}
