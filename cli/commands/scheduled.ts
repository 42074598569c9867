import type { Command } from 'commander'
import type { Rescheduled, ScheduledJob, ScheduledJobDetail, ScheduledJobs } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { parseDelay } from '../duration.ts'
import { usageError } from '../exit.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { withInspector } from '../inspector.ts'
import { echoInstant, parseDueInstant, type Instant } from '../instant.ts'
import { factLines, instantText, jsonLine, printable, spanText } from '../output.ts'
import { parseCount } from '../whole-number.ts'
import { addCancel } from './cancel.ts'

interface Flags {
  readonly group?: string
  readonly json?: boolean
}

interface ListFlags extends Flags {
  readonly limit?: number
  readonly after?: string
}

interface RescheduleFlags extends Flags {
  readonly delay?: number
  readonly at?: Instant
}

const HELP = `
Scheduled is what waits to become due: jobs published with a delay, and jobs that failed and wait for their next attempt.

Examples:
  $ millrace scheduled list orders
  $ millrace scheduled show orders 1795245552380-0
  $ millrace scheduled reschedule orders 1795245552380-0 --delay 10m
  $ millrace scheduled promote orders 1795245552380-0
  $ millrace scheduled cancel orders 1795245552380-0`

const LIST_HELP = `
group    the group that a retry belongs to; - for a delayed publish, which goes to all
due      when it goes to a worker; "set aside" if it could not be moved: reschedule or cancel it
attempt  attempts that failed

Examples:
  $ millrace scheduled list orders
  $ millrace scheduled list orders --group billing --limit 1000
  $ millrace scheduled list orders --json | jq -r '.jobs[] | select(.dueMs == null) | .id'`

const RESCHEDULE_HELP = `
Examples:
  $ millrace scheduled reschedule orders 1795245552380-0 --delay 3d
  $ millrace scheduled reschedule orders 1795245552380-0 --at 2026-11-21T10:00Z --group billing`

const EXAMPLE = (verb: string) => `
Examples:
  $ millrace scheduled ${verb} orders 1795245552380-0
  $ millrace scheduled ${verb} orders 1795245552380-0 --group billing --json`

export function registerScheduled(program: Command, context: CliContext): void {
  const scheduled = program
    .command('scheduled')
    .description('see and change what waits to become due')
    .addHelpText('after', HELP)
  addList(scheduled, context)
  addShow(scheduled, context)
  addReschedule(scheduled, context)
  addPromote(scheduled, context)
  addCancel(scheduled, context, EXAMPLE('cancel'))
}

function addList(scheduled: Command, context: CliContext): void {
  scheduled
    .command('list')
    .description('list it by due time')
    .argument('<stream>', 'the stream')
    .option('--group <group>', 'the retries of this group only')
    .option('--limit <count>', 'jobs a page (default: 100)', (text) => parseCount('--limit', text, { most: 1000 }))
    .option('--after <cursor>', 'the next page, as the one before named it')
    .option('--json', 'print JSON')
    .addHelpText('after', LIST_HELP)
    .action(async (stream: string, { json, ...asked }: ListFlags, command: Command) => {
      const page = await withInspector(context, (inspector) => inspector.scheduled.list(stream, asked))
      if (json === true) return void context.stdout.write(jsonLine({ stream, ...page }))
      if (page.jobs.length === 0)
        context.say(`nothing is scheduled on ${stream}${asked.group === undefined ? '' : ` for group ${asked.group}`}`)
      else context.stdout.write(`${fittingTable(context.stdout, COLUMNS, rowsOf(page)).join('\n')}\n`)
      if (page.next !== null) {
        const words = [
          ...(asked.group === undefined ? [] : ['--group', asked.group]),
          ...(asked.limit === undefined ? [] : ['--limit', String(asked.limit)]),
        ]
        const more = commandLine(command, 'scheduled', 'list', stream, ...words, '--after', page.next)
        context.say(`there are more: ${more}`)
      }
    })
}

function addShow(scheduled: Command, context: CliContext): void {
  jobCommand(scheduled, 'show', 'show one with its payload')
    .option('--json', 'print JSON')
    .addHelpText('after', EXAMPLE('show'))
    .action(async (stream: string, id: string, { group, json }: Flags) => {
      const jobs = await withInspector(context, (inspector) => inspector.scheduled.show(stream, id, ofGroup(group)))
      context.stdout.write(json === true ? jsonLine({ stream, jobs }) : `${jobs.map(detailText).join('\n\n')}\n`)
    })
}

function addReschedule(scheduled: Command, context: CliContext): void {
  jobCommand(scheduled, 'reschedule', 'give it another due time; brings back what was set aside')
    .option('--delay <duration>', 'due in so much time from now', (text) => parseDelay('--delay', text))
    .option('--at <time>', 'due at this time: 10:00 is local, 2026-11-21T10:00Z is UTC', (text) =>
      parseDueInstant('--at', text),
    )
    .option('--json', 'print its new due time as JSON')
    .addHelpText('after', RESCHEDULE_HELP)
    .action(async (stream: string, id: string, { group, json, delay, at }: RescheduleFlags) => {
      if ((delay === undefined) === (at === undefined)) {
        throw usageError(`expected either \`--delay\` or \`--at\`, got ${delay === undefined ? 'neither' : 'both'}`)
      }
      if (at !== undefined) echoInstant(context, '--at', at)
      const due = delay === undefined ? { runAt: at?.ms ?? 0 } : { delayMs: delay }
      const moved = await withInspector(context, ({ scheduled }) =>
        scheduled.reschedule(stream, id, { ...due, ...ofGroup(group) }),
      )
      context.stdout.write(json === true ? jsonLine(moved) : movedText(moved))
    })
}

function addPromote(scheduled: Command, context: CliContext): void {
  jobCommand(scheduled, 'promote', 'make it due now; a worker takes it within a second')
    .option('--json', 'print its new due time as JSON')
    .addHelpText('after', EXAMPLE('promote'))
    .action(async (stream: string, id: string, { group, json }: Flags) => {
      const moved = await withInspector(context, (inspector) => inspector.scheduled.promote(stream, id, ofGroup(group)))
      context.stdout.write(json === true ? jsonLine(moved) : movedText(moved))
    })
}

function jobCommand(scheduled: Command, name: string, description: string): Command {
  return scheduled
    .command(name)
    .description(description)
    .argument('<stream>', 'the stream')
    .argument('<job id>', 'the id that its publish returned')
    .option('--group <group>', 'the retry of this group only')
}

function ofGroup(group: string | undefined): { group?: string } {
  return group === undefined ? {} : { group }
}

const COLUMNS: readonly FittingColumn[] = [
  { title: 'id' },
  { title: 'job', least: 12 },
  { title: 'group', least: 10 },
  { title: 'due' },
  { title: 'attempt', align: 'right', spare: 1 },
  { title: 'bytes', align: 'right', spare: 2 },
  { title: 'error', least: 12 },
]

function rowsOf({ nowMs, jobs }: ScheduledJobs): string[][] {
  return jobs.map((one) => [
    one.id,
    one.job ?? '(not to be read)',
    one.group ?? '-',
    dueText(one, nowMs),
    String(one.attempt),
    String(one.bytes),
    one.error === '' ? '-' : one.error,
  ])
}

function dueText({ dueMs }: ScheduledJob, nowMs: number): string {
  if (dueMs === null) return 'set aside'
  return dueMs <= nowMs ? 'now' : `in ${spanText((dueMs - nowMs) / 1000)}`
}

function detailText(one: ScheduledJobDetail): string {
  const due = one.dueMs === null ? 'set aside' : instantText(one.dueMs)
  const about: [string, string][] = [
    ['id', one.id],
    ['job', one.job ?? '(not to be read)'],
    ['group', one.group ?? '- (a delayed publish: it goes to all)'],
    ['due', due],
    ['attempts failed', String(one.attempt)],
    ['error', one.error === '' ? '-' : one.error],
    ['bytes', String(one.bytes)],
  ]
  const fields = [...one.fields.filter(([name]) => name !== 'job'), ['data', one.data ?? '-'] as const]
  const fieldLines = fields.map(([name, value]) => `  ${printable(name)}: ${printable(value)}`)
  return [...factLines(about), 'fields', ...fieldLines].join('\n')
}

function movedText({ id, places }: Rescheduled): string {
  return places
    .map(
      ({ group, dueMs }) =>
        `${id} is due ${instantText(dueMs)}${group === null ? '' : ` in group ${printable(group)}`}\n`,
    )
    .join('')
}
