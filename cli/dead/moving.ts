import type { DeadFilter, DeadPlan, DeadResult, Inspector } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { exactDuration } from '../duration.ts'
import { CliError, EXIT } from '../exit.ts'
import { countText, jsonLine, plural, printable, spanText } from '../output.ts'
import { foldedLine } from '../paragraphs.ts'
import { Progress } from '../progress.ts'
import { exitCodeOfSignal, onStopSignals } from '../stop-signals.ts'
import { filterWords, nothingMatches, unknownText } from './flags.ts'
import { letterLines } from './letters-text.ts'

/** Redriving and purging: what would be done, and doing it with progress, an orderly Ctrl-C and a way to go on. */
export interface MoveAsked {
  readonly verb: 'redrive' | 'purge'
  readonly stream: string
  readonly group: string
  readonly filter: DeadFilter
  /** Of a purge: died at least so long ago, by the clock of Redis: this machine's may be wrong, and there is no way back. */
  readonly olderThanMs?: number | undefined
  readonly limit?: number | undefined
  readonly until?: string | undefined
  readonly rate?: number | undefined
  readonly execute: boolean
  readonly json: boolean
  /** A command line that does the same with these flags. */
  readonly again: (...flags: readonly string[]) => string
}

const PAST = { redrive: 'redriven', purge: 'purged' } as const
const MOST_NAMES = 10

export async function moveDead(context: CliContext, inspector: Inspector, asked: MoveAsked): Promise<void> {
  const stopping = new AbortController()
  let interruption: NodeJS.Signals | undefined
  let slowEnd: NodeJS.Timeout | undefined
  let progress: Progress | undefined
  const stopListening = onStopSignals(
    (signal) => {
      interruption = signal
      stopping.abort()
      slowEnd = setTimeout(() => {
        progress?.end()
        context.say('waiting for Redis to answer; Ctrl-C again ends at once')
      }, 500)
    },
    (exitCode) => context.exitNow(exitCode),
  )
  try {
    const plan = await planned(inspector, asked, stopping.signal)
    if (interruption !== undefined) {
      context.say('interrupted: nothing was changed')
      context.finish(exitCodeOfSignal(interruption))
    } else if (plan.count === 0) {
      reportNone(context, asked, plan)
    } else if (!asked.execute) {
      reportPlan(context, asked, plan)
    } else {
      const startedMs = performance.now()
      progress = new Progress(context.stderr)
      const result = await execute(inspector, asked, { plan, progress, signal: stopping.signal })
      progress.end()
      const seconds = (performance.now() - startedMs) / 1000
      report(context, asked, { plan, result, seconds, interruption })
    }
  } finally {
    stopListening()
    clearTimeout(slowEnd)
    progress?.end()
  }
}

function planned(inspector: Inspector, asked: MoveAsked, signal: AbortSignal): Promise<DeadPlan> {
  const { verb, stream, group } = asked
  const options = { ...optionsOf(asked), signal }
  return verb === 'purge'
    ? inspector.dead.purge(stream, group, { ...options, ...ageOf(asked) })
    : inspector.dead.redrive(stream, group, options)
}

interface Execution {
  readonly plan: DeadPlan
  readonly progress: Progress
  readonly signal: AbortSignal
}

/** What ended with an error in the middle is a result too: the error goes with it. */
async function execute(
  inspector: Inspector,
  asked: MoveAsked,
  { plan, progress, signal }: Execution,
): Promise<DeadResult & { problem?: Error }> {
  const { PartlyDoneError } = await import('../../src/index.ts')
  const { verb, stream, group, rate } = asked
  const options = {
    ...optionsOf(asked),
    execute: true as const,
    signal,
    untilDeadId: plan.untilDeadId,
    onProgress: ({ done, already }: { done: number; already: number }) =>
      progress.update(done + already, (done + already) / plan.count),
  }
  try {
    if (verb === 'purge') return await inspector.dead.purge(stream, group, { ...options, ...ageOf(asked) })
    return await inspector.dead.redrive(
      stream,
      group,
      rate === undefined ? options : { ...options, ratePerSecond: rate },
    )
  } catch (error) {
    if (!(error instanceof PartlyDoneError)) throw error
    return { ...(error.done as DeadResult), problem: error }
  }
}

function reportNone(context: CliContext, asked: MoveAsked, plan: DeadPlan): void {
  const { verb, stream, group, until } = asked
  if (asked.json) context.stdout.write(jsonLine({ stream, group, ...plan, command: null }))
  // A command that goes on with what is left may find nothing left: then all is as it shall be.
  if (until === undefined) throw nothingMatches(stream, group, plan.unknownIds)
  context.say(`nothing is left to ${verb} up to ${until}`)
}

function reportPlan(context: CliContext, asked: MoveAsked, plan: DeadPlan): void {
  const { verb, stream, group } = asked
  const command = commandOf(asked, plan.untilDeadId)
  if (asked.json) {
    context.stdout.write(jsonLine({ stream, group, ...plan, command }))
  } else {
    const about = [
      `${plural(plan.count, 'dead letter')} of group ${group} of ${stream} would be ${PAST[verb]}`,
      `  reason  ${namesText(plan.byReason.map(({ reason, count }) => [reason, count]))}`,
      `  job     ${namesText(plan.byJob.map(({ job, count }) => [job ?? '-', count]))}`,
    ].map(printable)
    const lines = [
      ...about.flatMap((line) => foldedLine(context.stdout, line, '          ')),
      ...letterLines(context.stdout, plan.samples, '  '),
    ]
    context.stdout.write(`${lines.join('\n')}\n`)
    context.say(`nothing was changed; to ${verb} ${plan.count === 1 ? 'it' : 'them'}: ${command}`)
  }
  if (plan.unknownIds.length > 0 && asked.until === undefined) {
    throw new CliError(unknownText(plan.unknownIds), EXIT.notFound)
  }
}

interface Outcome {
  readonly plan: DeadPlan
  readonly result: DeadResult & { problem?: Error }
  readonly seconds: number
  readonly interruption: NodeJS.Signals | undefined
}

/** @throws CliError if not all of it was done. */
function report(context: CliContext, asked: MoveAsked, { plan, result, seconds, interruption }: Outcome): void {
  const { stream, group, verb } = asked
  const { problem, ...told } = result
  const gone = result.done + result.already
  const isCut = problem !== undefined || (result.interrupted && gone + result.refused < plan.count)
  const rest = asked.limit === undefined ? asked : { ...asked, limit: Math.max(1, asked.limit - gone) }
  const command = isCut ? commandOf(rest, result.untilDeadId) : null
  if (asked.json) context.stdout.write(jsonLine({ stream, group, ...told, command }))
  const done = `${PAST[verb]} ${plural(result.done, 'dead letter')} of group ${group} of ${stream}${alreadyText(result)}`
  for (const { id, deadId, why } of result.refusals) context.say(`left ${id || deadId}: ${WHY[why]}`)
  if (problem !== undefined) {
    throw new CliError(`${problem.message}; to go on: ${command ?? ''}`, EXIT.partly)
  }
  if (command !== null) {
    context.say(`interrupted: ${done}, of ${countText(plan.count)}; to go on: ${command}`)
    context.finish(exitCodeOfSignal(interruption ?? 'SIGINT'))
    return
  }
  const rate = seconds > 0 ? ` (${countText(result.done / seconds)}/s)` : ''
  context.say(`${done} in ${spanText(seconds)}${rate}`)
  const left = [
    ...(result.refused === 0 ? [] : [`${plural(result.refused, 'dead letter')} could not be ${PAST[verb]}`]),
    ...(result.unknownIds.length === 0 || asked.until !== undefined ? [] : [unknownText(result.unknownIds)]),
  ]
  if (left.length > 0) throw new CliError(left.join('; '), gone > 0 ? EXIT.partly : EXIT.failed)
}

const WHY = {
  wide: 'it has too many fields to be moved (more than about 3,900)',
  unreadable: 'it is not what a worker writes',
} as const

function alreadyText({ already }: DeadResult): string {
  if (already === 0) return ''
  return ` (${countText(already)} more ${already === 1 ? 'was' : 'were'} gone already)`
}

function optionsOf({ filter, limit, until }: MoveAsked) {
  return {
    filter,
    ...(limit === undefined ? {} : { limit }),
    ...(until === undefined ? {} : { untilDeadId: until }),
  }
}

function ageOf({ olderThanMs }: MoveAsked): { olderThanMs?: number } {
  return olderThanMs === undefined ? {} : { olderThanMs }
}

/** The command line that does what was asked, up to this letter and no newer one. */
function commandOf(asked: MoveAsked, untilDeadId: string | null): string {
  const { again, filter, olderThanMs, rate, limit } = asked
  return again(
    ...filterWords(filter),
    ...(olderThanMs === undefined ? [] : ['--older-than', exactDuration(olderThanMs)]),
    ...(rate === undefined ? [] : ['--rate', String(rate)]),
    ...(limit === undefined ? [] : ['--limit', String(limit)]),
    ...(untilDeadId === null ? [] : ['--until', untilDeadId]),
    '--execute',
  )
}

function namesText(counted: readonly (readonly [string, number])[]): string {
  const shown = counted.slice(0, MOST_NAMES).map(([name, count]) => `${printable(name)} ${countText(count)}`)
  const others = counted.length - shown.length
  return [...shown, ...(others > 0 ? [`and ${plural(others, 'other')}`] : [])].join(', ')
}
