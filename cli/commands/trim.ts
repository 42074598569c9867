import type { Command } from 'commander'
import type { EntryCount, Inspector, TrimPlan, TrimResult, Watermark } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { exactDuration, LONGEST_AGE_MS, parseDuration } from '../duration.ts'
import { CliError, EXIT } from '../exit.ts'
import { withInspector } from '../inspector.ts'
import { countText, jsonLine, momentText, plural, printable, spanText } from '../output.ts'
import { foldedLine } from '../paragraphs.ts'
import { Progress } from '../progress.ts'
import { parseSize, sizeText } from '../size.ts'
import { exitCodeOfSignal, onStopSignals } from '../stop-signals.ts'
import { parseCount } from '../whole-number.ts'

interface TrimFlags {
  readonly maxAge?: number
  readonly maxBytes?: number
  readonly maxEntries?: number
  readonly execute?: true
  readonly json?: true
}

const HELP = `
Workers trim by themselves, as the settings of the stream say. This tells what keeps a stream from being trimmed, and trims
it now, also within other bounds. What a group has not settled is never removed.

Examples:
  $ millrace trim orders
  $ millrace trim orders --execute
  $ millrace trim orders --max-age 1h --execute
  $ millrace trim orders --max-bytes 500MiB --json`

export function registerTrim(program: Command, context: CliContext): void {
  program
    .command('trim')
    .description('remove what every group has settled and retention does not keep')
    .argument('<stream>', 'the stream')
    .option('--max-age <duration>', 'keep what is younger; 0s keeps nothing (default: as the settings say)', (text) =>
      parseDuration('--max-age', text, { minMs: 0, mostMs: LONGEST_AGE_MS }),
    )
    .option('--max-bytes <size>', 'keep at most this much (default: as the settings say)', (text) =>
      parseSize('--max-bytes', text),
    )
    .option('--max-entries <count>', 'keep at most as many entries (default: as the settings say)', (text) =>
      parseCount('--max-entries', text, { most: 1e15 - 1 }),
    )
    .option('--execute', 'do it; else only what would be removed is told')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action((stream: string, flags: TrimFlags, command: Command) =>
      withInspector(context, (inspector) => trim(context, inspector, { stream, flags, command })),
    )
}

async function trim(
  context: CliContext,
  inspector: Inspector,
  { stream, flags, command }: { stream: string; flags: TrimFlags; command: Command },
): Promise<void> {
  const progress = new Progress(context.stderr, 'entries')
  const ended = new AbortController()
  let interruption: NodeJS.Signals | undefined
  let removed = 0
  const stopListening = onStopSignals(
    (signal) => {
      interruption = signal
      ended.abort()
    },
    (exitCode) => context.exitNow(exitCode),
  )
  try {
    const { maxAge, maxBytes, maxEntries } = flags
    const result = await inspector.trim(stream, {
      execute: flags.execute === true,
      ...(maxAge === undefined ? {} : { maxAgeMs: maxAge }),
      ...(maxBytes === undefined ? {} : { maxBytes }),
      ...(maxEntries === undefined ? {} : { maxEntries }),
      signal: ended.signal,
      onProgress(count) {
        removed = count
        progress.update(count, undefined)
      },
    })
    progress.end()
    report(context, result, { json: flags.json === true, again: again(command, stream, flags), command })
    if (result.isInterrupted && interruption !== undefined) context.finish(exitCodeOfSignal(interruption))
  } catch (error) {
    progress.end()
    if (removed === 0) throw error
    throw new CliError(
      `${(error as Error).message}; ${plural(removed, 'entry', 'entries')} were removed`,
      EXIT.partly,
      {
        cause: error,
      },
    )
  } finally {
    stopListening()
  }
}

function report(
  context: CliContext,
  result: TrimResult,
  { json, again, command }: { json: boolean; again: string; command: Command },
): void {
  if (json) {
    context.stdout.write(jsonLine(result))
    return
  }
  context.stdout.write(
    `${planLines(result)
      .flatMap((line) => foldedLine(context.stdout, printable(line)))
      .join('\n')}\n`,
  )
  const { isExecuted, isInterrupted, removed, wouldRemove, watermark } = result
  if (watermark?.replay) {
    const { stream, id } = watermark.replay
    context.say(`to see the replay that keeps it: ${commandLine(command, 'replays', 'show', stream, id)}`)
  }
  if (isExecuted) context.say(`${isInterrupted ? 'interrupted: ' : ''}removed ${plural(removed, 'entry', 'entries')}`)
  else if (wouldRemove.entries === 0 && wouldRemove.isExact) context.say('there is nothing to remove')
  else context.say(`nothing was removed; to remove it: ${again}`)
}

function again(command: Command, stream: string, { maxAge, maxBytes, maxEntries }: TrimFlags): string {
  return commandLine(
    command,
    ...['trim', stream],
    ...(maxAge === undefined ? [] : ['--max-age', exactDuration(maxAge)]),
    ...(maxBytes === undefined ? [] : ['--max-bytes', String(maxBytes)]),
    ...(maxEntries === undefined ? [] : ['--max-entries', String(maxEntries)]),
    '--execute',
  )
}

function planLines({ stream, entries, bytes, oldestEntryMs, bounds, watermark, ...counts }: TrimPlan): string[] {
  const size = bytes === null ? 'of unknown size' : `about ${sizeText(bytes)}`
  const since = oldestEntryMs === null ? 'no history' : `history since ${momentText(oldestEntryMs)}`
  const kept = [
    ...(bounds.maxAgeMs === null ? [] : [`the last ${exactDuration(bounds.maxAgeMs)}`]),
    ...(bounds.maxBytes === null ? [] : [`at most ${sizeText(bounds.maxBytes)}`]),
    ...(bounds.maxEntries === null ? [] : [`at most ${plural(bounds.maxEntries, 'entry', 'entries')}`]),
  ]
  return [
    `stream ${stream}: ${plural(entries, 'entry', 'entries')}, ${size}, ${since}`,
    `retention: keep ${kept.length === 0 ? 'everything' : kept.join(', ')}`,
    `watermark: ${watermark === null ? 'none, for no group reads the stream: nothing is ever removed' : holderText(watermark)}`,
    `settled by every group: ${countOf(counts.settled)}; to be removed of these: ${countOf(counts.wouldRemove)}`,
  ]
}

function holderText({ id, group, replay, pending, seconds }: Watermark): string {
  if (replay !== null) {
    return `${id}, up to where replay ${replay.id} into ${replay.stream} has read; the oldest it keeps is of ${spanText(seconds)} ago`
  }
  if (id === '0-0') return `${id}: group ${group} has read nothing`
  const age = `the oldest it keeps is of ${spanText(seconds)} ago`
  if (pending === null) return `${id}, up to where group ${group} has read; ${age}`
  const { consumer, idleMs, deliveries } = pending
  const whose = consumer === ':handback' ? 'handed back' : `pending at ${consumer}`
  const times = `${plural(deliveries, 'delivery', 'deliveries')}, not renewed for ${spanText(idleMs / 1000)}`
  return `${id} of group ${group}, ${whose} (${times}); ${age}`
}

function countOf({ entries, isExact }: EntryCount): string {
  return `${isExact ? '' : 'about '}${countText(entries)}`
}
