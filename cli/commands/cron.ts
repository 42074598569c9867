import { Option, type Command } from 'commander'
import type { CronList, CronSchedule, CronStand } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { exactDuration, parseDelay, parseDuration } from '../duration.ts'
import { usageError } from '../exit.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { withInspector } from '../inspector.ts'
import { echoInstant, parseDueInstant, type Instant } from '../instant.ts'
import { instantText, jsonLine, spanText } from '../output.ts'
import { parseCount } from '../whole-number.ts'

interface ListFlags {
  readonly limit?: number
  readonly after?: string
  readonly json?: boolean
}

interface SetFlags {
  readonly at?: string
  readonly zone?: string
  readonly every?: number
  readonly start?: Instant
  readonly end?: Instant
  readonly overlap?: NonNullable<CronSchedule['overlap']>
  readonly catchUp?: NonNullable<CronSchedule['catchUp']>
  readonly grace?: number
  readonly ttl?: number
  readonly header?: Readonly<Record<string, string>>
  readonly json?: boolean
}

/** What the library takes. */
const LONGEST_EVERY_MS = 3650 * 86_400_000

/** Its arguments, as they were typed. */
type SetWords = [stream: string, name: string, job: string, data: string | undefined, flags: SetFlags]

const HELP = `
A schedule publishes a job again and again: by five fields (minute hour day-of-month month day-of-week), six with seconds
before them, or every so often. It is kept in Redis, and the workers of its stream fire it: each tick once, however many they
are. While no worker of the stream runs, nothing is fired.

Examples:
  $ millrace cron set orders nightly send-report --at '0 3 * * *' --zone Europe/Berlin
  $ millrace cron set orders poll fetch-rates '{"of":"ECB"}' --every 5m --overlap skip
  $ millrace cron list orders
  $ millrace cron run orders nightly
  $ millrace cron remove orders nightly`

const LIST_HELP = `
next     the tick that it waits for. overdue: no worker fires it. queued: it
         waits for the job of the tick before. ended: no tick will come.
         set aside: it could not be fired, until it is set again
last     its last tick
fired    jobs that it has published
skipped  ticks that were left out, as the last job had not ended

The last job of each is lastJobId of --json; millrace explain says which group
has not ended it, and why.

Examples:
  $ millrace cron list orders
  $ millrace cron list orders --json | jq -r '.schedules[] | select(.state == "overdue") | .name'`

const SET_HELP = `
Setting what is there already changes nothing. A schedule whose times change begins with its next tick from now on; it publishes
to the stream, where workers that know the job run it.

--overlap   allow: each tick is fired. skip: not while the last job has not
            ended. queue-one: one tick waits for that
--catch-up  of ticks that no worker was there for (later than --grace): none,
            one for all of them, or all

Examples:
  $ millrace cron set orders nightly send-report --at '0 3 * * *' --zone Europe/Berlin
  $ millrace cron set orders weekdays send-report '{"kind":"short"}' --at '30 7 * * 1-5' --catch-up none
  $ millrace cron set orders poll fetch-rates --every 5m --overlap skip --ttl 5m
  $ millrace cron set orders fair open-doors --at '0 9 * * *' --start 2026-12-01T00:00Z --end 2026-12-24T00:00Z`

const EXAMPLES = (verb: string) => `
Examples:
  $ millrace cron ${verb} orders nightly
  $ millrace cron ${verb} orders nightly --json`

export function registerCron(program: Command, context: CliContext): void {
  const cron = program.command('cron').description('publish a job again and again').addHelpText('after', HELP)
  addList(cron, context)
  addSet(cron, context)
  addRemove(cron, context)
  addRun(cron, context)
}

function addList(cron: Command, context: CliContext): void {
  cron
    .command('list')
    .description('list the schedules of a stream by when they are due')
    .argument('<stream>', 'the stream')
    .option('--limit <count>', 'schedules a page (default: 100)', (text) => parseCount('--limit', text, { most: 500 }))
    .option('--after <cursor>', 'the next page, as the one before named it')
    .option('--json', 'print JSON')
    .addHelpText('after', LIST_HELP)
    .action(async (stream: string, { json, ...asked }: ListFlags, command: Command) => {
      const page = await withInspector(context, (inspector) => inspector.cron.list(stream, asked))
      if (json === true) return void context.stdout.write(jsonLine({ stream, ...page }))
      if (page.schedules.length === 0) context.say(`${stream} has no schedules`)
      else context.stdout.write(`${fittingTable(context.stdout, COLUMNS, rowsOf(page)).join('\n')}\n`)
      if (page.next === null) return
      const limit = asked.limit === undefined ? [] : ['--limit', String(asked.limit)]
      context.say(`there are more: ${commandLine(command, 'cron', 'list', stream, ...limit, '--after', page.next)}`)
    })
}

function addSet(cron: Command, context: CliContext): void {
  cron
    .command('set')
    .description('make a schedule, or change it')
    .argument('<stream>', 'the stream that its jobs go to')
    .argument('<name>', 'its name')
    .argument('<job>', 'the name of the job')
    .argument('[data]', 'the payload of each, as JSON')
    .option('--at <fields>', "when, as cron writes it: '0 3 * * *'")
    .option('--zone <zone>', 'the time zone of --at (default: UTC)')
    .option('--every <duration>', 'when: every so often, counted from --start', (text) =>
      parseDuration('--every', text, { minMs: 100, mostMs: LONGEST_EVERY_MS }),
    )
    .option('--start <time>', 'no tick before it: 10:00 is local, 2026-11-21T10:00Z is UTC', (text) =>
      parseDueInstant('--start', text),
    )
    .option('--end <time>', 'no tick from then on', (text) => parseDueInstant('--end', text))
    .addOption(
      new Option('--overlap <how>', 'while its last job has not ended (default: allow)').choices([
        ...['allow', 'skip', 'queue-one'],
      ]),
    )
    .addOption(new Option('--catch-up <how>', 'of missed ticks (default: one)').choices(['none', 'one', 'all']))
    .option('--grace <duration>', 'a tick later than this was missed (default: 1m)', (text) =>
      parseDelay('--grace', text),
    )
    .option('--ttl <duration>', 'how long one of its jobs may wait for its start', (text) => parseDelay('--ttl', text))
    .option('--header <name=text>', 'goes with each of its jobs; may be repeated', parseHeader)
    .option('--json', 'print what became of it as JSON')
    .addHelpText('after', SET_HELP)
    .action(async (...[stream, name, job, data, flags]: SetWords) => {
      if ((flags.at === undefined) === (flags.every === undefined)) {
        throw usageError(`expected either \`--at\` or \`--every\`, got ${flags.at === undefined ? 'neither' : 'both'}`)
      }
      for (const option of ['start', 'end'] as const) {
        if (flags[option] !== undefined) echoInstant(context, `--${option}`, flags[option])
      }
      const schedule = { name, job, data: data === undefined ? null : parseData(data), ...scheduleOf(flags) }
      const set = await withInspector(context, (inspector) => inspector.cron.set(stream, schedule))
      if (flags.json === true) return void context.stdout.write(jsonLine(set))
      const next = set.nextMs === null ? 'no tick will come' : `next ${instantText(set.nextMs)}`
      context.stdout.write(`${name} ${OUTCOMES[set.outcome]}: ${next}\n`)
    })
}

const OUTCOMES = { new: 'was made', set: 'was changed', same: 'is as it was' } as const

function addRemove(cron: Command, context: CliContext): void {
  cron
    .command('remove')
    .description('remove a schedule; its jobs stay')
    .argument('<stream>', 'the stream')
    .argument('<name>', 'its name')
    .option('--json', 'print what was removed as JSON')
    .addHelpText('after', EXAMPLES('remove'))
    .action(async (stream: string, name: string, { json }: { json?: boolean }) => {
      await withInspector(context, (inspector) => inspector.cron.remove(stream, name))
      context.stdout.write(json === true ? jsonLine({ stream, name, removed: true }) : `${name} was removed\n`)
    })
}

function addRun(cron: Command, context: CliContext): void {
  cron
    .command('run')
    .description('publish the job of a schedule once, now')
    .argument('<stream>', 'the stream')
    .argument('<name>', 'its name')
    .option('--json', 'print the id of the job as JSON')
    .addHelpText('after', `\nIts ticks stay as they are.\n${EXAMPLES('run')}`)
    .action(async (stream: string, name: string, { json }: { json?: boolean }) => {
      const { id } = await withInspector(context, (inspector) => inspector.cron.run(stream, name))
      context.stdout.write(json === true ? jsonLine({ stream, name, id }) : `${id}\n`)
    })
}

function scheduleOf(flags: SetFlags): Omit<CronSchedule, 'name' | 'job' | 'data'> {
  const { at, zone, every, start, end, overlap, catchUp, grace, ttl, header } = flags
  return {
    ...(at !== undefined && { at }),
    ...(zone !== undefined && { zone }),
    ...(every !== undefined && { everyMs: every }),
    ...(start !== undefined && { start: start.ms }),
    ...(end !== undefined && { end: end.ms }),
    ...(overlap !== undefined && { overlap }),
    ...(catchUp !== undefined && { catchUp }),
    ...(grace !== undefined && { graceMs: grace }),
    ...(ttl !== undefined && { ttlMs: ttl }),
    ...(header !== undefined && { headers: header }),
  }
}

const COLUMNS: readonly FittingColumn[] = [
  { title: 'name', least: 12 },
  { title: 'job', least: 12 },
  { title: 'when', least: 12 },
  { title: 'next' },
  { title: 'last', spare: 1 },
  { title: 'fired', align: 'right', spare: 2 },
  { title: 'skipped', align: 'right', spare: 3 },
]

function rowsOf({ nowMs, schedules }: CronList): string[][] {
  return schedules.map((one) => [
    one.name,
    one.job ?? '(not to be read)',
    whenText(one),
    nextText(one, nowMs),
    one.lastTickMs === null ? '-' : instantText(one.lastTickMs),
    String(one.fired),
    String(one.skipped),
  ])
}

function whenText({ at, zone, everyMs }: CronStand): string {
  if (everyMs !== null) return `every ${exactDuration(everyMs)}`
  return at === null ? '-' : zone === 'UTC' || zone === null ? at : `${at} ${zone}`
}

function nextText({ state, nextMs }: CronStand, nowMs: number): string {
  if (state === 'set-aside') return 'set aside'
  if (state === 'ended' || state === 'queued' || nextMs === null) return state
  if (state === 'overdue') return `overdue by ${spanText((nowMs - nextMs) / 1000)}`
  return nextMs <= nowMs ? 'now' : `in ${spanText((nextMs - nowMs) / 1000)}`
}

function parseHeader(text: string, others: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  const at = text.indexOf('=')
  if (at < 1) throw usageError('expected `--header` to be a name, = and a text, such as tenant=acme')
  return { ...others, [text.slice(0, at)]: text.slice(at + 1) }
}

function parseData(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw usageError(`expected the data to be JSON, such as '{"order":42}' or '"text"'; check the shell's quotes`)
  }
}
