import type { Command } from 'commander'
import type { Inspector, RewindResult } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { withInspector } from '../inspector.ts'
import { countText, factLines, jsonLine, momentText, plural, printable } from '../output.ts'
import { foldedLine } from '../paragraphs.ts'
import { Progress } from '../progress.ts'
import { endOf, parseRangeEnd, rangeWords, type RangeEnd } from '../range.ts'
import { exitCodeOfSignal, onStopSignals } from '../stop-signals.ts'

interface RewindFlags {
  readonly to: RangeEnd
  readonly force?: true
  readonly execute?: true
  readonly json?: true
}

const HELP = `
Everything from the point on is delivered to the group again, in order: jobs that completed too, so handlers must bear that.
Other groups see nothing of it. Without --execute it only tells how many jobs that is. Refused while a worker of the group
is alive; with --force what it runs now runs once more beside that. A part of the history, by job, data or time, is run again
by millrace replay, which leaves the group where it is.

Times are 2026-11-21T10:00:00Z, 10:00 (today, local time), -15m (so long ago), or ms since the epoch. An entry id is the first
entry that runs again.

Examples:
  $ millrace groups rewind orders main --to 10:00
  $ millrace groups rewind orders main --to -15m --execute
  $ millrace groups rewind orders main --to 1795245552380-0 --execute --force`

/** `groups rewind`, under the command `groups`. */
export function registerRewind(groups: Command, context: CliContext): void {
  groups
    .command('rewind')
    .description('set a group back to a point of the history')
    .argument('<stream>', 'the stream')
    .argument('<group>', 'the group')
    .requiredOption('--to <time|entry>', 'what is from this time or entry on runs again', (text) =>
      parseRangeEnd('--to', text),
    )
    .option('--force', 'also while a worker of the group is alive')
    .option('--execute', 'do it; else only what would run again is told')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action((stream: string, group: string, flags: RewindFlags, command: Command) =>
      withInspector(context, (inspector) => rewind(context, inspector, { stream, group, flags, command })),
    )
}

interface Asked {
  readonly stream: string
  readonly group: string
  readonly flags: RewindFlags
  readonly command: Command
}

async function rewind(context: CliContext, inspector: Inspector, asked: Asked): Promise<void> {
  const { stream, group, flags } = asked
  const to = endOf(context, '--to', flags.to)
  const progress = new Progress(context.stderr, 'entries')
  const ended = new AbortController()
  let interruption: NodeJS.Signals | undefined
  const stopListening = onStopSignals(
    (signal) => {
      interruption = signal
      ended.abort()
    },
    (exitCode) => context.exitNow(exitCode),
  )
  try {
    const result = await inspector.groups.rewind(stream, group, {
      to,
      execute: flags.execute === true,
      force: flags.force === true,
      signal: ended.signal,
      onProgress: (entries) => progress.update(entries, undefined),
    })
    progress.end()
    report(context, asked, { result, to })
  } catch (error) {
    progress.end()
    if (interruption === undefined || error !== ended.signal.reason) throw error
    context.say('interrupted: nothing was changed')
    context.finish(exitCodeOfSignal(interruption))
  } finally {
    stopListening()
  }
}

function report(
  context: CliContext,
  { stream, group, flags, command }: Asked,
  { result, to }: { result: RewindResult; to: number | string },
): void {
  const { executed, again, workers } = result
  const force = workers > 0 ? ['--force'] : []
  const words = ['groups', 'rewind', stream, group, ...rangeWords('--to', to), ...force, '--execute']
  const next = executed || again === 0 ? null : commandLine(command, ...words)
  if (flags.json === true) context.stdout.write(jsonLine({ ...result, command: next }))
  else
    context.stdout.write(
      `${resultLines(result)
        .flatMap((line) => foldedLine(context.stdout, printable(line)))
        .join('\n')}\n`,
    )
  if (again === 0) {
    context.say(`nothing was changed: group ${group} of ${stream} has been given nothing from that point on`)
  } else if (next === null) {
    context.say(`rewound group ${group} of ${stream}: ${plural(again, 'job')} will run again`)
  } else {
    for (const line of warnings(result)) context.say(line)
    context.say(`nothing was changed; to rewind the group: ${next}`)
  }
}

function resultLines(result: RewindResult): string[] {
  const { executed, stream, group, again, pendingAgain, firstId, lastId, lagBefore, lagAfter, workers } = result
  const will = executed ? 'will run' : 'would run'
  const ofRange = firstId === null || lastId === null ? '' : ` of ${rangeText(firstId, lastId)}`
  const lag = (count: number | null) => (count === null ? 'an unknown number' : countText(count))
  const rows: [string, string][] = [
    ['first entry', firstId ?? '-'],
    ['last entry', lastId ?? '-'],
    [
      'pending of these',
      `${countText(pendingAgain)}${pendingAgain === 0 ? '' : ', which run once more and not twice'}`,
    ],
    ['not yet delivered', `${lag(lagBefore)} before, ${lag(lagAfter)} after`],
    ['live workers', countText(workers)],
  ]
  const title = `${plural(again, 'job')}${ofRange} ${will} again in group ${group} of ${stream}`
  if (again === 0) return [title]
  return [title, ...factLines(rows).map((line) => `  ${line}`)]
}

function rangeText(firstId: string, lastId: string): string {
  const [first, last] = [firstId, lastId].map((id) => momentText(Number(id.slice(0, id.indexOf('-')))))
  return first === last ? `${first}` : `${first} to ${last}`
}

/** What whoever executes it must know. */
function warnings({ workers, also }: RewindResult): string[] {
  const beside = also === null ? [] : alsoTexts(also)
  return [
    'handlers run again for jobs that completed too: they must bear that; millrace replay runs a part of them, and leaves the group where it is',
    ...(beside.length === 0
      ? []
      : [`the group has some of these jobs elsewhere too, and runs them from there beside this: ${beside.join(', ')}`]),
    ...(workers === 0
      ? []
      : [
          `it has ${plural(workers, 'live worker')}: stop them first; with --force what they run now runs once more beside that`,
        ]),
  ]
}

function alsoTexts({ scheduled, dead, redelivery }: NonNullable<RewindResult['also']>): string[] {
  return [
    ...(scheduled === 0 ? [] : [plural(scheduled, 'scheduled retry', 'scheduled retries')]),
    ...(redelivery === 0 ? [] : [`${countText(redelivery)} in its redelivery stream`]),
    ...(dead === 0 ? [] : [`${plural(dead, 'dead letter')} if redriven`]),
  ]
}
