import type { Command } from 'commander'
import type { GroupStats, Inspector, StreamStats } from '../../src/index.ts'
import { figuresOf, judgeGroup, linesText, rank, type Asked, type CheckKind, type Judged } from '../check/groups.ts'
import { stateCode, verdictLine, type Thresholds } from '../check/verdict.ts'
import type { CliContext } from '../context.ts'
import { parseAge } from '../duration.ts'
import { CliError, EXIT, usageError, wrongValue } from '../exit.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine, shortName } from '../output.ts'

/**
 * Checks for a monitor that runs plugins: Nagios, Icinga, Sensu, a cron line. They answer with the four states that those
 * know, also where something fails: see `failedCheck` for what is thrown.
 */

interface CheckFlags {
  readonly warn?: string
  readonly crit?: string
  readonly jobs?: boolean
  readonly newer?: string
  readonly json?: boolean
}

const STATES_HELP = `
Prints one line with the figures behind a bar, and exits with 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN: also unknown, and
never critical, are a Redis that is away, a stream or group that there is not, and a wrong option. A figure above its
threshold counts. Without a group all of the stream are checked, and the worst of them counts.`

const HELP: Readonly<Record<CheckKind, string>> = {
  lag: `${STATES_HELP}

The lag is the age of the oldest job that was not delivered yet. With --jobs it is their number, which Redis does not
always know: then the state is unknown.

Examples:
  $ millrace check lag orders main
  $ millrace check lag orders --warn 30s --crit 5m
  $ millrace check lag orders main --jobs --warn 1000 --crit 10000`,
  pending: `${STATES_HELP}

The age is that of the oldest job that was delivered and is not settled, since it was published. With --jobs it is their
number.

Examples:
  $ millrace check pending orders main
  $ millrace check pending orders main --warn 10m --crit 30m
  $ millrace check pending orders --jobs --warn 500 --crit 5000`,
  dead: `${STATES_HELP}

Without --newer all dead letters of a group are counted, however old they are; with it up to 10 000 of those that died in
that time, by the clock of this machine.

Examples:
  $ millrace check dead orders main
  $ millrace check dead orders --warn 0 --crit 100
  $ millrace check dead orders --newer 10m --warn 0 --crit 10`,
}

const DEFAULTS: Readonly<Record<CheckKind | 'jobs', readonly [warn: string, crit: string]>> = {
  lag: ['1m', '5m'],
  pending: ['30m', '1h'],
  dead: ['0', '100'],
  jobs: ['1000', '10000'],
}

const ABOUT: Readonly<Record<CheckKind, string>> = {
  lag: 'check how far a group is behind',
  pending: 'check how long jobs are in hand',
  dead: 'check how many dead letters there are',
}

export function registerCheck(program: Command, context: CliContext): void {
  const check = program.command('check').description('check against thresholds, as a plugin of Nagios or Icinga does')
  for (const kind of ['lag', 'pending', 'dead'] as const) {
    const [warn, crit] = DEFAULTS[kind]
    const byJobs = kind === 'dead' ? '' : `; with --jobs ${DEFAULTS.jobs[0]}`
    const byJobsCrit = kind === 'dead' ? '' : `; with --jobs ${DEFAULTS.jobs[1]}`
    const command = check
      .command(kind)
      .description(ABOUT[kind])
      .argument('<stream>', 'the stream')
      .argument('[group]', 'one group only')
      .option('--warn <threshold>', `above this it is a warning (default: ${warn}${byJobs})`)
      .option('--crit <threshold>', `above this it is critical (default: ${crit}${byJobsCrit})`)
    if (kind === 'dead') command.option('--newer <age>', 'count only those that died in this time')
    else command.option('--jobs', 'thresholds are numbers of jobs')
    command
      .option('--json', 'print JSON')
      .addHelpText('after', HELP[kind])
      .action((stream: string, group: string | undefined, flags: CheckFlags) =>
        runCheck(context, kind, { stream, group }, flags),
      )
  }
}

async function runCheck(
  context: CliContext,
  kind: CheckKind,
  { stream, group }: { stream: string; group: string | undefined },
  flags: CheckFlags,
): Promise<void> {
  const isCount = kind === 'dead' || flags.jobs === true
  const asked: Asked = { kind, isCount, thresholds: thresholdsOf(kind, flags, isCount) }
  const newerMs = flags.newer === undefined ? undefined : parseAge('--newer', flags.newer)
  const judged = await withInspector(context, async (inspector) => {
    const stats = await statsOf(inspector, stream, group)
    const all: Judged[] = []
    for (const each of stats.groups) {
      const newer = newerMs === undefined ? undefined : await newlyDead(inspector, stream, each, newerMs)
      all.push(judgeGroup(stats, each, asked, newer))
    }
    return all
  })
  const { state, groups } = rank(judged)
  if (flags.json) {
    const { warn, crit } = asked.thresholds
    const told = groups.map(({ figures, ...rest }) => ({
      ...rest,
      figures: Object.fromEntries(figures.map(({ label, value }) => [label, value])),
    }))
    const unit = isCount ? 'jobs' : 'seconds'
    context.stdout.write(jsonLine({ check: kind, state, stream, unit, warn, crit, groups: told }))
  } else {
    const figures = figuresOf(groups, group !== undefined)
    context.stdout.write(`${verdictLine(kind, state, linesText(groups), figures)}\n`)
  }
  context.finish(stateCode(state))
}

/** The stream, with the groups that are asked for: one at least. */
async function statsOf(inspector: Inspector, stream: string, group: string | undefined): Promise<StreamStats> {
  const [stats] = await inspector.stats(stream)
  if (stats === undefined) throw new CliError(`stream ${stream} does not exist`, EXIT.notFound)
  const groups = group === undefined ? stats.groups : stats.groups.filter((each) => each.group === group)
  if (groups.length > 0) return { ...stats, groups }
  const others = stats.groups.map((each) => shortName(each.group)).slice(0, 20)
  const hint = others.length === 0 ? 'it has none' : `its groups: ${others.join(', ')}`
  throw new CliError(
    group === undefined
      ? `stream ${stream} has no group: nobody reads what is published`
      : `stream ${stream} has no group ${group} (${hint})`,
    EXIT.notFound,
  )
}

/** Dead letters that died in this time. It is counted as far as a monitor's thresholds go, and no further. */
async function newlyDead(
  inspector: Inspector,
  stream: string,
  { group, dead }: GroupStats,
  newerMs: number,
): Promise<number> {
  // Nor may a group that is not ours, of a name that we refuse, keep the others from being judged.
  if (dead === 0) return 0
  const filter = { fromMs: Math.max(0, Date.now() - newerMs) }
  let [count, before]: [number, string | undefined] = [0, undefined]
  while (count < MOST_DEAD) {
    const page = await inspector.dead.list(stream, group, {
      filter,
      limit: 1000,
      ...(before === undefined ? {} : { before }),
    })
    count += page.letters.length
    // Newest first: a page that is not full has met one that is too old.
    if (page.next === null || page.letters.length < 1000) break
    before = page.next
  }
  return count
}

const MOST_DEAD = 10_000

/** @throws CliError for what is no threshold, and for a warning that would come after the alarm. */
function thresholdsOf(kind: CheckKind, flags: CheckFlags, isCount: boolean): Thresholds {
  const [warnText, critText] = DEFAULTS[isCount && kind !== 'dead' ? 'jobs' : kind]
  const parse = isCount ? jobsOf : secondsOf
  // One of them alone moves the other where it would be on the wrong side of it.
  const given = { warn: optional('--warn', flags.warn, parse), crit: optional('--crit', flags.crit, parse) }
  const warn = given.warn ?? Math.min(parse('--warn', warnText), given.crit ?? Infinity)
  const crit = given.crit ?? Math.max(parse('--crit', critText), warn)
  if (warn > crit) {
    throw usageError(`expected \`--warn\` to be at most \`--crit\`, got ${flags.warn ?? ''} and ${flags.crit ?? ''}`)
  }
  return { warn, crit }
}

function optional(
  option: string,
  text: string | undefined,
  parse: (option: string, text: string) => number,
): number | undefined {
  return text === undefined ? undefined : parse(option, text)
}

function secondsOf(option: string, text: string): number {
  return text === '0' || text === '0s' ? 0 : parseAge(option, text) / 1000
}

function jobsOf(option: string, text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw wrongValue(option, 'a number of jobs, such as 0 or 1000', text)
}
