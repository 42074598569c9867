import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { groupNames, SPECIAL_KINDS, type SpecialKind } from './measures/groups.ts'
import { FULL } from './measures/scale.ts'
import { PEERS, type Peer } from './peers.ts'

export interface BenchOptions {
  readonly quick: boolean
  /** What is measured instead of the plain groups; empty is those. */
  readonly kinds: readonly SpecialKind[]
  /** Names of groups, of both kinds; none is all of the chosen kind. */
  readonly only: readonly string[]
  readonly rounds: number | undefined
  readonly without: readonly Peer[]
  readonly json: string | undefined
  readonly markdown: string | undefined
  readonly profile: string | undefined
}

const NAMES = groupNames(FULL)

const HELP = `
Progress goes to stderr, the tables to stdout. Every measurement has a process and a private Redis of its own.
Exit codes: 0 ok, 1 a floor was missed or something failed, 2 usage, 130 interrupted.

Measures: ${NAMES.plain.join(', ')}
With --lifecycle: ${NAMES.lifecycle.join(', ')}
With --recovery: ${NAMES.recovery.join(', ')}
With --observed: ${NAMES.observed.join(', ')}
With --outage: ${NAMES.outage.join(', ')}
With --control: ${NAMES.control.join(', ')}
With --time: ${NAMES.time.join(', ')}

Examples:
  $ npm run bench -- --json bench.json
  $ npm run bench -- --only process --only publish-many --rounds 3
  $ npm run bench -- --lifecycle
  $ npm run bench -- --recovery
  $ npm run bench -- --observed
  $ npm run bench -- --outage
  $ npm run bench -- --control
  $ npm run bench -- --time
  $ npm run bench -- --quick`

/** Reads the command line. @throws CommanderError with what is to be said, also for --help. */
export function readOptions(args: readonly string[]): BenchOptions {
  const program = new Command('npm run bench --')
    .description('Measures millrace beside a plain loop over Redis Streams, BullMQ and Bee-Queue.')
    .addOption(listOption('--only <measure>', 'measure this alone; may be given again', Object.values(NAMES).flat()))
    .option('--lifecycle', 'measure retries, scheduled jobs and dead letters instead, beside BullMQ', false)
    .option('--recovery', 'measure replay, audit, explain and the like on two million entries instead', false)
    .option('--observed', 'measure what metrics, tracing and a scrape cost instead', false)
    .option('--outage', 'measure publishing while Redis is away and comes back instead', false)
    .option('--control', 'measure unique keys, several streams and a rate limit instead', false)
    .option('--time', 'measure results, schedules, batches, order by key and chains instead', false)
    .option('--rounds <n>', 'rounds of each measure', wholeNumber)
    .option('--quick', 'tiny counts and one round: only whether it runs; no floor is judged', false)
    .addOption(listOption('--without <peer>', 'go on as if this peer were not installed; may be given again', PEERS))
    .option('--json <file>', 'write every figure to this file')
    .option('--markdown <file>', 'write the tables to this file')
    .option('--profile <folder>', "write CPU profiles of millrace's processes to this folder")
    .helpOption('-h, --help', 'show this help')
    .addHelpText('after', HELP)
    .allowExcessArguments(false)
    .exitOverride()
  program.parse(args, { from: 'user' })
  const given = program.opts<Partial<BenchOptions> & Partial<Record<SpecialKind, boolean>>>()
  const { quick, only, rounds, without, json, markdown, profile } = given
  return {
    quick: quick === true,
    kinds: SPECIAL_KINDS.filter((kind) => given[kind] === true),
    only: only ?? [],
    rounds,
    without: without ?? [],
    json,
    markdown,
    profile,
  }
}

/** The exit code that an error of the command line asks for; undefined for any other error. */
export function usageExitCode(error: unknown): number | undefined {
  if (!(error instanceof CommanderError)) return undefined
  return error.exitCode === 0 ? 0 : 2
}

function listOption(flags: string, description: string, choices: readonly string[]): Option {
  const collect = (value: string, before: readonly string[] = []) => {
    if (!choices.includes(value)) throw new InvalidArgumentError(`It is one of: ${choices.join(', ')}.`)
    return [...before, value]
  }
  return new Option(flags, description).argParser(collect)
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,2}$/.test(text)) throw new InvalidArgumentError('It is a whole number from 1 to 999.')
  return Number(text)
}
