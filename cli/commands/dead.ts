import type { Command } from 'commander'
import type { DeadFilter, DeadLetter, Inspector } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import {
  filterOf,
  filterWords,
  hasFilter,
  nothingMatches,
  unknownText,
  withFilterFlags,
  type FilterFlags,
} from '../dead/flags.ts'
import { detailDocument, detailLines, errorGroupLines, letterLines } from '../dead/letters-text.ts'
import { moveDead } from '../dead/moving.ts'
import { parseAge } from '../duration.ts'
import { CliError, EXIT, usageError } from '../exit.ts'
import { withInspector } from '../inspector.ts'
import { countText, jsonLine } from '../output.ts'
import { parseCount } from '../whole-number.ts'

interface ListFlags extends FilterFlags {
  readonly limit?: number
  readonly before?: string
  readonly byError?: boolean
  readonly json?: boolean
}

interface MoveFlags extends FilterFlags {
  readonly limit?: number
  readonly until?: string
  readonly rate?: number
  readonly olderThan?: number
  readonly execute?: boolean
  readonly json?: boolean
}

const TIMES = `
Times are 2026-11-21T10:00:00Z, 10:00 (today, local time), -15m (so long ago), or ms since the epoch.`

const LIST_HELP = `${TIMES}

Examples:
  $ millrace dead list orders main
  $ millrace dead list orders main --by-error
  $ millrace dead list orders main --job send-receipt --error ECONNREFUSED --from -1h
  $ millrace dead list orders main --json | jq -r '.letters[].id'`

const SHOW_HELP = `
Examples:
  $ millrace dead show orders main 1795245552380-0
  $ millrace dead show orders main 1795245552380-0 --json | jq -r .payload`

const REDRIVE_HELP = `
A redriven job is delivered to the group again, under its id and with attempts that start anew. Without --execute nothing
is changed. It can be interrupted, and the command that it prints then goes on with what is left.${TIMES}

Examples:
  $ millrace dead redrive orders main
  $ millrace dead redrive orders main --execute
  $ millrace dead redrive orders main --error ECONNREFUSED --from 10:00 --to 10:30 --rate 50 --execute
  $ millrace dead redrive orders main --id 1795245552380-0 --execute`

const PURGE_HELP = `
A purged dead letter is gone for good. Without --execute nothing is changed.${TIMES}

Examples:
  $ millrace dead purge orders main --reason malformed
  $ millrace dead purge orders main --older-than 7d --execute`

const MOST_LISTED = 100_000
const PAGE = 1000

export function registerDead(program: Command, context: CliContext): void {
  const dead = program.command('dead').description('look at dead letters, redrive them, purge them')
  registerList(dead, context)
  registerShow(dead, context)
  registerMoves(dead, context)
}

function registerList(dead: Command, context: CliContext): void {
  withFilterFlags(placed(dead.command('list').description('list dead letters, the newest first')))
    .option(
      '--limit <count>',
      `how many at most (default: 100); with --by-error how many to look at (default: 10000)`,
      (text) => parseCount('--limit', text, { most: MOST_LISTED }),
    )
    .option('--before <dead id>', 'only those older than this dead letter, to go on with')
    .option('--by-error', 'put those together that died of the same error')
    .option('--json', 'print JSON')
    .addHelpText('after', LIST_HELP)
    .action(async (stream: string, group: string, flags: ListFlags, command: Command) => {
      if (flags.byError && flags.id !== undefined) throw usageError('expected either `--id` or `--by-error`, got both')
      const filter = filterOf(context, flags)
      await withInspector(context, async (inspector) => {
        const asked = { stream, group, filter, flags, command }
        if (flags.byError) await listErrors(context, inspector, asked)
        else await listLetters(context, inspector, asked)
      })
    })
}

function registerShow(dead: Command, context: CliContext): void {
  placed(dead.command('show').description('show one dead letter with its error and its fields'))
    .argument('<id>', "the job's id, or the dead letter's own")
    .option('--json', 'print JSON')
    .addHelpText('after', SHOW_HELP)
    .action(async (stream: string, group: string, id: string, { json }: { json?: boolean }) => {
      await withInspector(context, async (inspector) => {
        const letter = await inspector.dead.show(stream, group, id)
        if (json) context.stdout.write(jsonLine({ stream, group, ...detailDocument(letter) }))
        else context.stdout.write(`${detailLines(letter).join('\n')}\n`)
      })
    })
}

function registerMoves(dead: Command, context: CliContext): void {
  const redrive = dead.command('redrive').description('give dead letters back to their group, to be run again')
  withMoveFlags(redrive)
    .option('--rate <count>', 'how many a second at most', (text) => parseCount('--rate', text, { most: 1_000_000 }))
    .option('--execute', 'do it')
    .addHelpText('after', REDRIVE_HELP)
    .action(async (stream: string, group: string, flags: MoveFlags, command: Command) => {
      await move(context, 'redrive', { stream, group, flags, command })
    })
  const purge = dead.command('purge').description('delete dead letters')
  withMoveFlags(purge)
    .option('--older-than <age>', 'died at least so long ago, such as 7d', (text) => parseAge('--older-than', text))
    .option('--execute', 'do it')
    .addHelpText('after', PURGE_HELP)
    .action(async (stream: string, group: string, flags: MoveFlags, command: Command) => {
      await move(context, 'purge', { stream, group, flags, command })
    })
}

function placed(command: Command): Command {
  return command.argument('<stream>', 'the stream').argument('<group>', 'the group whose dead letters they are')
}

function withMoveFlags(command: Command): Command {
  return withFilterFlags(placed(command))
    .option('--limit <count>', 'how many at most, the oldest first', (text) =>
      parseCount('--limit', text, { most: 1_000_000_000 }),
    )
    .option('--until <dead id>', 'none newer than this dead letter (default: the newest one there is at the beginning)')
    .option('--json', 'print what is done as JSON')
}

interface ListAsked {
  readonly stream: string
  readonly group: string
  readonly filter: DeadFilter
  readonly flags: ListFlags
  readonly command: Command
}

async function listLetters(context: CliContext, inspector: Inspector, asked: ListAsked): Promise<void> {
  const { stream, group, filter, flags } = asked
  const limit = flags.limit ?? 100
  const letters: DeadLetter[] = []
  let next = flags.before ?? null
  let page
  do {
    const options = {
      filter,
      limit: Math.min(PAGE, limit - letters.length),
      ...(next === null ? {} : { before: next }),
    }
    page = await inspector.dead.list(stream, group, options)
    letters.push(...page.letters)
    next = page.next
  } while (next !== null && letters.length < limit)
  const { total, unknownIds } = page
  if (flags.json) context.stdout.write(jsonLine({ stream, group, total, letters, next, unknownIds }))
  else if (letters.length > 0) context.stdout.write(`${letterLines(context.stdout, letters).join('\n')}\n`)
  if (letters.length === 0) return nothingListed(context, asked, unknownIds)
  if (next !== null && !flags.json) sayMore(context, asked, next)
  if (unknownIds.length > 0) throw new CliError(unknownText(unknownIds), EXIT.notFound)
}

async function listErrors(context: CliContext, inspector: Inspector, asked: ListAsked): Promise<void> {
  const { stream, group, filter, flags } = asked
  const { groups, scanned, next } = await inspector.dead.errors(stream, group, {
    filter,
    ...(flags.limit === undefined ? {} : { most: flags.limit }),
    ...(flags.before === undefined ? {} : { before: flags.before }),
  })
  if (flags.json) context.stdout.write(jsonLine({ stream, group, scanned, groups, next }))
  else if (groups.length > 0) context.stdout.write(`${errorGroupLines(context.stdout, groups).join('\n')}\n`)
  if (next !== null && !flags.json) {
    context.say(`looked at ${countText(scanned)} dead letters`)
    sayMore(context, asked, next)
  } else if (groups.length === 0) {
    nothingListed(context, asked, [])
  }
}

function nothingListed(context: CliContext, { stream, group, filter }: ListAsked, unknownIds: readonly string[]): void {
  if (hasFilter(filter)) throw nothingMatches(stream, group, unknownIds)
  context.say(`group ${group} of ${stream} has no dead letters`)
}

function sayMore(context: CliContext, { stream, group, filter, flags, command }: ListAsked, next: string): void {
  const words = ['dead', 'list', stream, group, ...filterWords(filter)]
  if (flags.byError) words.push('--by-error')
  if (flags.limit !== undefined) words.push('--limit', String(flags.limit))
  context.say(`there are more: ${commandLine(command, ...words, '--before', next)}`)
}

async function move(
  context: CliContext,
  verb: 'redrive' | 'purge',
  { stream, group, flags, command }: { stream: string; group: string; flags: MoveFlags; command: Command },
): Promise<void> {
  const filter = filterOf(context, flags)
  const { olderThan: olderThanMs, limit, until, rate } = flags
  const [execute, json] = [flags.execute === true, flags.json === true]
  const again = (...words: readonly string[]) => commandLine(command, 'dead', verb, stream, group, ...words)
  const asked = { verb, stream, group, filter, olderThanMs, limit, until, rate, execute, json, again }
  await withInspector(context, (inspector) => moveDead(context, inspector, asked))
}
