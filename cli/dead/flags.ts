import type { Command } from 'commander'
import type { DeadFilter, DeadReason } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { CliError, EXIT } from '../exit.ts'
import { echoInstant, parsePastInstant, type Instant } from '../instant.ts'
import { plural } from '../output.ts'

/** The flags by which dead letters are chosen: the same for every command. */
export interface FilterFlags {
  readonly id?: readonly string[]
  readonly job?: string
  readonly reason?: string
  readonly error?: string
  readonly from?: Instant
  readonly to?: Instant
}

export function withFilterFlags(command: Command): Command {
  const instant = (option: string) => (text: string) => parsePastInstant(option, text)
  return command
    .option(
      '--id <id>',
      'this job, or this dead letter; can be given more than once',
      (id: string, ids: string[] = []) => [...ids, id],
    )
    .option('--job <name>', 'jobs of this name')
    .option('--reason <reason>', 'dead for this reason, such as attempts or malformed')
    .option('--error <text>', 'a part of the class or the message of the error, in upper or lower case')
    .option('--from <time>', 'died at this time or later', instant('--from'))
    .option('--to <time>', 'died before this time', instant('--to'))
}

/** The filter that the flags mean; tells what local times were taken for. */
export function filterOf(context: CliContext, { id, job, reason, error, from, to }: FilterFlags): DeadFilter {
  if (from !== undefined) echoInstant(context, '--from', from)
  if (to !== undefined) echoInstant(context, '--to', to)
  return {
    ...(id === undefined ? {} : { ids: [...new Set(id)] }),
    ...(job === undefined ? {} : { job }),
    ...(reason === undefined ? {} : { reason: reason as DeadReason }),
    ...(error === undefined ? {} : { error }),
    ...(from === undefined ? {} : { fromMs: from.ms }),
    ...(to === undefined ? {} : { toMs: to.ms }),
  }
}

/** The same filter as words of a command line, with times that no longer depend on when it is entered. */
export function filterWords({ ids = [], job, reason, error, fromMs, toMs }: DeadFilter): string[] {
  return [
    ...ids.flatMap((id) => ['--id', id]),
    ...(job === undefined ? [] : ['--job', job]),
    ...(reason === undefined ? [] : ['--reason', reason]),
    ...(error === undefined ? [] : ['--error', error]),
    ...(fromMs === undefined ? [] : ['--from', new Date(fromMs).toISOString()]),
    ...(toMs === undefined ? [] : ['--to', new Date(toMs).toISOString()]),
  ]
}

export function hasFilter(filter: DeadFilter): boolean {
  return Object.keys(filter).length > 0
}

export function nothingMatches(stream: string, group: string, unknownIds: readonly string[]): CliError {
  const told = `no dead letter of group ${group} of ${stream} matches`
  return new CliError(unknownIds.length === 0 ? told : `${told}: ${unknownText(unknownIds)}`, EXIT.notFound)
}

/** `2 ids are of no dead letter: 1-0, 2-0`. */
export function unknownText(unknownIds: readonly string[]): string {
  const [first, more] = [unknownIds.slice(0, 10).join(', '), unknownIds.length > 10 ? ', …' : '']
  return `${plural(unknownIds.length, 'id')} ${unknownIds.length === 1 ? 'is' : 'are'} of no dead letter: ${first}${more}`
}
