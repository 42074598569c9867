import type { Command } from 'commander'
import type { AuditResult, Inspector, Range } from '../../src/index.ts'
import { auditLines, minuteLines, noteLines } from '../audit-text.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { CliError, EXIT, usageError } from '../exit.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine, plural, printable } from '../output.ts'
import { Progress } from '../progress.ts'
import { RANGE_HELP, rangeOf, rangeWords, withRangeFlags, type RangeFlags } from '../range.ts'

interface AuditFlags extends RangeFlags {
  readonly group?: string
  readonly repair?: true
  readonly execute?: true
  readonly all?: true
  readonly json?: true
}

const HELP = `
Adds up, minute by minute of publishing, what the stream holds and what the group has made of it. Exit 0: every job is
completed, dead, cancelled, scheduled, pending or not yet delivered. Exit 1: the minutes, counts and, where they can be
known, ids of jobs that are not. All ids are known where a group records outcomes: see millrace settings.

--repair tells which of them can be handed back to the group, to run again; with --execute they are.
${RANGE_HELP} Whole minutes are audited.

Examples:
  $ millrace audit orders --group main
  $ millrace audit orders --group billing --from 10:00 --to 10:30
  $ millrace audit orders --group main --from -2h --repair --execute
  $ millrace audit orders --group main --json | jq .findings`

export function registerAudit(program: Command, context: CliContext): void {
  const command = program
    .command('audit')
    .description('prove that every job is accounted for, or tell which are not')
    .argument('<stream>', 'the stream')
    .option('--group <group>', 'whose jobs (default: the only group of the stream)')
  withRangeFlags(command)
    .option('--repair', 'tell what can be handed back to the group')
    .option('--execute', 'with --repair: hand it back')
    .option('--all', 'show the minutes that add up too')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action((stream: string, flags: AuditFlags, own: Command) => {
      if (flags.execute === true && flags.repair !== true) {
        throw usageError('expected `--execute` together with `--repair`: without it nothing is changed')
      }
      const range = rangeOf(context, flags)
      return withInspector(context, (inspector) => audit(context, inspector, { stream, flags, range, command: own }))
    })
}

interface Asked {
  readonly stream: string
  readonly flags: AuditFlags
  readonly range: Range
  readonly command: Command
}

async function audit(context: CliContext, inspector: Inspector, asked: Asked): Promise<void> {
  const { stream, flags, range } = asked
  const group = flags.group ?? (await onlyGroup(inspector, stream))
  const progress = new Progress(context.stderr, 'entries')
  const result = await inspector
    .audit(stream, {
      ...{ group, ...range },
      ...{ repair: flags.repair === true, execute: flags.execute === true },
      onProgress: (entries) => progress.update(entries, undefined),
    })
    .finally(() => progress.end())
  report(context, result, asked)
  if (!isSound(result)) context.finish(EXIT.failed)
}

/** @throws CliError where it must be said which. */
async function onlyGroup(inspector: Inspector, stream: string): Promise<string> {
  const groups = (await inspector.groups.list(stream)).map(({ group }) => group)
  const [only] = groups
  if (only !== undefined && groups.length === 1) return only
  if (groups.length === 0) {
    throw new CliError(
      `stream ${stream} has no group: there is nobody whose jobs could be accounted for`,
      EXIT.notFound,
    )
  }
  throw usageError(`expected \`--group\` to say whose jobs (there are: ${groups.join(', ')})`)
}

/** Whether nothing is left to be done about it. */
function isSound({ ok, findings, repair }: AuditResult): boolean {
  if (ok || repair === null || !repair.isExecuted) return ok
  return findings.every(({ isRepairable }) => isRepairable) && found(findings) <= repair.handedBack
}

const found = (findings: AuditResult['findings']) => findings.reduce((sum, { count }) => sum + count, 0)

function report(context: CliContext, result: AuditResult, asked: Asked): void {
  const { flags } = asked
  const shown = result.minutes.filter(({ state }) => flags.all === true || state !== 'ok')
  if (flags.json === true) {
    context.stdout.write(jsonLine({ ...result, minutes: shown }))
    return
  }
  const table = shown.length === 0 ? [] : ['', ...minuteLines(shown)]
  context.stdout.write(`${[...auditLines(result), ...table].map(printable).join('\n')}\n`)
  for (const line of [...noteLines(result), ...nextLines(result, asked)]) context.say(line)
}

/** What to do next. */
function nextLines(result: AuditResult, { stream, flags, range, command }: Asked): string[] {
  const { group, findings, repair, isRecording } = result
  if (repair?.isExecuted === true) return [`handed back ${plural(repair.handedBack, 'job')}`]
  const words = [
    'audit',
    stream,
    '--group',
    group,
    ...rangeWords('--from', range.from),
    ...rangeWords('--to', range.to),
  ]
  const all = flags.all === true ? ['--all'] : []
  const lines: string[] = []
  if (repair !== null && repair.handedBack > 0) {
    const many = plural(repair.handedBack, 'job')
    lines.push(
      `nothing was changed; to hand back ${many}: ${commandLine(command, ...words, '--repair', '--execute', ...all)}`,
    )
  } else if (repair === null && findings.some(({ isRepairable }) => isRepairable)) {
    lines.push(`to see what can be handed back: ${commandLine(command, ...words, '--repair')}`)
  }
  if (!isRecording && findings.some(({ kind, count, ids }) => kind === 'missing' && ids.length < count)) {
    const record = commandLine(command, 'settings', stream, `${group}.record=outcomes`)
    lines.push(`to know the ids of such jobs from now on: ${record}`)
  }
  return lines
}
