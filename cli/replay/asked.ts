import type { Command } from 'commander'
import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import type { ReplayOptions, ReplayTarget } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { usageError } from '../exit.ts'
import { rangeOf, rangeWords, type RangeFlags } from '../range.ts'

/** What the flags of a replay mean, and the command lines that mean it again. */

export interface ReplayFlags extends RangeFlags {
  readonly ids?: string
  readonly job?: string
  readonly where?: string
  readonly group?: string
  readonly toStream?: string
  readonly rate?: number
  readonly limit?: number
  readonly includeReplays?: true
  readonly execute?: true
  readonly json?: true
}

export async function optionsOf(context: CliContext, flags: ReplayFlags): Promise<ReplayOptions> {
  const { ids, job, where, group, toStream, rate, limit, includeReplays } = flags
  checkFlags(flags)
  return {
    ...rangeOf(context, flags),
    ...(ids === undefined ? {} : { ids: await idsIn(context, ids) }),
    ...(job === undefined ? {} : { job }),
    ...(where === undefined ? {} : { where }),
    ...(group === undefined ? {} : { group }),
    ...(toStream === undefined ? {} : { toStream }),
    ...(rate === undefined ? {} : { perSecond: rate }),
    ...(limit === undefined ? {} : { limit }),
    ...(includeReplays === true ? { includeReplays } : {}),
  }
}

/** In the words of the command line, which the library does not know. */
function checkFlags({ from, to, ids, group, toStream }: ReplayFlags): void {
  if (ids === undefined && from === undefined) {
    throw usageError('expected `--from` or `--ids`: say which jobs to replay; --from 0-0 is all of the history')
  }
  if (ids !== undefined && (from !== undefined || to !== undefined)) {
    throw usageError('expected either `--ids` or `--from` and `--to`, got both')
  }
  if ((group === undefined) === (toStream === undefined)) {
    const got = group === undefined ? 'neither' : 'both'
    throw usageError(`expected either \`--group\` or \`--to-stream\`, got ${got}: say where the jobs are to go`)
  }
}

/** Job ids of a file, one a line; `-` is stdin. Empty lines and what follows a # are left out. */
async function idsIn(context: CliContext, file: string): Promise<string[]> {
  const written = file === '-' ? await text(context.stdin) : await contentsOf(file)
  const ids: string[] = []
  for (const [at, line] of written.split('\n').entries()) {
    const id = line.replace(/#.*/, '').trim()
    if (id === '') continue
    if (!/^\d{1,20}-\d{1,20}$/.test(id)) {
      const got = JSON.stringify(id.slice(0, 60))
      throw usageError(`expected line ${at + 1} of ${file} to be a job id such as 1795245552380-0, got ${got}`)
    }
    ids.push(id)
  }
  if (ids.length === 0) throw usageError(`expected job ids in ${file}, one a line, got none`)
  return ids
}

async function contentsOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw usageError(`cannot read the ids from ${file}: ${(error as Error).message}`)
  }
}

/** The command line that replays what the plan has shown, and no entry that came later. */
export function executeCommand(
  command: Command,
  stream: string,
  { flags, fromId, toId }: { flags: ReplayFlags; fromId: string; toId: string },
): string {
  const { ids, job, where, group, toStream, rate, limit, includeReplays } = flags
  return commandLine(
    command,
    ...['replay', stream],
    ...(ids === undefined ? [...rangeWords('--from', fromId), ...rangeWords('--to', toId)] : ['--ids', ids]),
    ...(job === undefined ? [] : ['--job', job]),
    ...(where === undefined ? [] : ['--where', where]),
    ...(group === undefined ? [] : ['--group', group]),
    ...(toStream === undefined ? [] : ['--to-stream', toStream]),
    ...(rate === undefined ? [] : ['--rate', String(rate)]),
    ...(limit === undefined ? [] : ['--limit', String(limit)]),
    ...(includeReplays === true ? ['--include-replays'] : []),
    '--execute',
  )
}

export function resumeCommand(command: Command, { id, target }: { id: string; target: ReplayTarget }): string {
  return commandLine(command, 'replays', 'resume', target.stream, id)
}

/** `group main`, or `stream orders-copy`. */
export function targetText({ stream, group }: ReplayTarget): string {
  return group === null ? `stream ${stream}` : `group ${group}`
}
