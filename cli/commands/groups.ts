import { Option, type Command } from 'commander'
import type { GroupRemoval, Inspector, StreamStats } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { parseDuration } from '../duration.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { abandonedLines, pausedLines, pinsText } from '../group-text.ts'
import { withInspector } from '../inspector.ts'
import { countText, jsonLine, momentText, plural, tableLines } from '../output.ts'
import { parseCount } from '../whole-number.ts'
import { registerRewind } from './rewind.ts'

interface CreateFlags {
  readonly start: 'oldest' | 'now'
  readonly lease?: number
  readonly maxDeliveries?: number
}

interface RemoveFlags {
  readonly execute?: true
  readonly force?: true
  readonly json?: true
}

const DAY_MS = 86_400_000

const LIST_HELP = `
lag        entries not yet delivered to the group; ? where Redis does not know
scheduled  retries that wait for their time
last seen  when a worker of the group was last heard of
pins       what the stream must keep for the group, whatever its retention says

A group of which nobody was heard for 24 hours is told of as one that may be removed.

Examples:
  $ millrace groups list orders
  $ millrace groups list orders --json | jq -r '.groups[] | select(.abandoned) | .group'`

const CREATE_HELP = `
A group that is made before its workers start misses nothing in between. The stream need not exist yet.

Examples:
  $ millrace groups create orders billing --start now
  $ millrace groups create orders audit --start oldest --lease 30s --max-deliveries 5`

const REMOVE_HELP = `
Without --execute it only tells what would be abandoned. Jobs that the group has not settled are then nobody's any more; the
stream itself and its other groups are not touched. Its name is unknown afterwards: a worker must say where it starts. With
--force it is removed under workers that run, and these make it anew, for what is published from then on.

Examples:
  $ millrace groups remove orders billing
  $ millrace groups remove orders billing --execute
  $ millrace groups remove orders billing --execute --force`

export function registerGroups(program: Command, context: CliContext): void {
  const groups = program
    .command('groups')
    .description('see, make, rewind and remove the groups of a stream')
    .addHelpText('after', `\nExamples:\n  $ millrace groups list orders\n  $ millrace groups remove orders billing`)
  groups
    .command('list')
    .description('show the groups of a stream')
    .argument('<stream>', 'the stream')
    .option('--json', 'print JSON')
    .addHelpText('after', LIST_HELP)
    .action((stream: string, { json }: { json?: true }, command: Command) =>
      withInspector(context, async (inspector) => {
        for (const stats of await inspector.stats(stream)) print(context, stats, { json: json === true, command })
      }),
    )
  groups
    .command('create')
    .description('make a group before its workers start')
    .argument('<stream>', 'the stream')
    .argument('<group>', 'the name of the new group')
    .addOption(
      new Option('--start <where>', 'with what the stream holds already, or with what is published from now on')
        .choices(['oldest', 'now'])
        .makeOptionMandatory(),
    )
    .option(
      '--lease <duration>',
      "how long a dead worker's jobs stay unclaimed (default: as its first worker says)",
      (text) => parseDuration('--lease', text, { minMs: 500, mostMs: DAY_MS }),
    )
    .option('--max-deliveries <count>', 'deliveries before a job is dead (default: as its first worker says)', (text) =>
      parseCount('--max-deliveries', text, { most: 1000 }),
    )
    .addHelpText('after', CREATE_HELP)
    .action((stream: string, group: string, flags: CreateFlags) =>
      withInspector(context, (inspector) => create(context, inspector, { stream, group }, flags)),
    )
  addRemove(groups, context)
  registerRewind(groups, context)
}

function addRemove(groups: Command, context: CliContext): void {
  groups
    .command('remove')
    .description('remove a group with its retries and dead letters')
    .argument('<stream>', 'the stream')
    .argument('<group>', 'the group')
    .option('--execute', 'do it; else only what would be abandoned is told')
    .option('--force', 'also while a worker of the group is alive')
    .option('--json', 'print JSON')
    .addHelpText('after', REMOVE_HELP)
    .action((stream: string, group: string, flags: RemoveFlags, command: Command) =>
      withInspector(context, async (inspector) => {
        if (flags.execute !== true) {
          const plan = await inspector.groups.removal(stream, group)
          tell(context, plan, flags)
          if (flags.json !== true) dryRun(context, plan, command)
          return
        }
        const removed = await inspector.groups.remove(stream, group, { force: flags.force === true })
        tell(context, removed, flags)
        const isUnread = removed.isLastGroup && removed.workers === 0
        const after = isUnread ? `; ${NO_GROUP_LEFT}` : removed.workers > 0 ? `; its workers run: ${STILL_RUNS}` : ''
        context.say(`removed group ${group} of ${stream}${after}`)
      }),
    )
}

const STILL_RUNS = 'they make it anew, for what is published from now on'
const NO_GROUP_LEFT = 'the stream has no other group: nobody reads it, and it is not trimmed'

const COLUMNS: readonly FittingColumn[] = [
  { title: 'group', least: 16 },
  { title: 'lag', align: 'right' },
  { title: 'pending', align: 'right' },
  { title: 'scheduled', align: 'right' },
  { title: 'dead', align: 'right' },
  { title: 'workers', align: 'right' },
  { title: 'last seen', spare: 1 },
  { title: 'pins', least: 24 },
]

function print(
  context: CliContext,
  { stream, paused, groups }: StreamStats,
  { json, command }: { json: boolean; command: Command },
): void {
  if (json) {
    context.stdout.write(jsonLine({ at: new Date().toISOString(), stream, paused, groups }))
    return
  }
  if (groups.length === 0) {
    const create = commandLine(command, 'groups', 'create', stream, 'main', '--start', 'oldest')
    return context.say(`stream ${stream} has no group yet; its first worker makes one, or: ${create}`)
  }
  const rows = groups.map((stats) => [
    stats.paused === null ? stats.group : `${stats.group} (paused)`,
    stats.lag === null ? '?' : String(stats.lag),
    String(stats.pending),
    String(stats.scheduled),
    String(stats.dead),
    String(stats.workers),
    stats.lastSeenMs === null ? 'never' : momentText(stats.lastSeenMs),
    pinsText(stats),
  ])
  context.stdout.write(`${fittingTable(context.stdout, COLUMNS, rows).join('\n')}\n`)
  for (const line of pausedLines(command, { stream, paused, groups })) context.say(line)
  for (const line of abandonedLines(command, stream, groups)) context.say(line)
}

async function create(
  context: CliContext,
  inspector: Inspector,
  { stream, group }: { stream: string; group: string },
  { start, lease, maxDeliveries }: CreateFlags,
): Promise<void> {
  await inspector.groups.create(stream, group, {
    startAt: start,
    ...(lease === undefined ? {} : { leaseMs: lease }),
    ...(maxDeliveries === undefined ? {} : { maxDeliveries }),
  })
  const from = start === 'oldest' ? 'the oldest entry' : 'what is published from now on'
  context.say(`made group ${group} of ${stream}: it starts with ${from}`)
}

/** What a removal abandons, or has abandoned. */
function tell(context: CliContext, plan: GroupRemoval, { execute, json }: RemoveFlags): void {
  if (json === true) {
    context.stdout.write(jsonLine({ ...plan, isExecuted: execute === true }))
    return
  }
  const { lag, pending, redelivery, scheduled, dead, workers, lastSeenMs } = plan
  const retries = redelivery === null || redelivery === 0 ? '' : `, ${countText(redelivery)} of these two as retries`
  const seen = lastSeenMs === null ? 'none was ever heard of' : `last heard of ${momentText(lastSeenMs)}`
  const rows = [
    ['not yet delivered', lag === null ? 'an unknown number' : countText(lag)],
    ['pending', `${countText(pending)}${retries}`],
    ['scheduled retries', countText(scheduled)],
    ['dead letters', countText(dead)],
    ['live workers', `${countText(workers)}, ${seen}`],
  ]
  const title = `group ${plan.group} of ${plan.stream}`
  context.stdout.write(
    `${tableLines([{ title }, { title: execute === true ? 'abandoned' : 'would be abandoned' }], rows).join('\n')}\n`,
  )
}

function dryRun(context: CliContext, { stream, group, workers, isLastGroup }: GroupRemoval, command: Command): void {
  if (workers > 0) context.say(`it has ${plural(workers, 'live worker')}: stop them first; with --force ${STILL_RUNS}`)
  if (isLastGroup) context.say(NO_GROUP_LEFT)
  context.say(
    `nothing was removed; to remove it: ${commandLine(command, 'groups', 'remove', stream, group, '--execute')}`,
  )
}
