import type { Command } from 'commander'
import type { ReplayProgress, ReplayResult } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { CliError, codeOf, EXIT } from '../exit.ts'
import { countText, jsonLine, plural, spanText } from '../output.ts'
import { Progress } from '../progress.ts'
import { exitCodeOfSignal, onStopSignals } from '../stop-signals.ts'
import { resumeCommand, targetText } from './asked.ts'
import { unclearText, unknownText } from './plan-text.ts'

/** A replay that runs: progress, an orderly Ctrl-C, and what came of it. */

export interface Listening {
  readonly signal: AbortSignal
  readonly onProgress: (progress: ReplayProgress) => void
}

export interface Heard<Told> {
  readonly told: Told
  readonly interruption: NodeJS.Signals | undefined
  readonly seconds: number
}

/** Does something long with progress on a terminal; Ctrl-C has it end in order, a second one at once. */
export async function listening<Told>(
  context: CliContext,
  noun: string,
  run: (listening: Listening) => Promise<Told>,
): Promise<Heard<Told>> {
  const progress = new Progress(context.stderr, noun)
  const stopping = new AbortController()
  let interruption: NodeJS.Signals | undefined
  let slowEnd: NodeJS.Timeout | undefined
  // Of what is gone on with, only the rest is told: its pace says when that will be done.
  let first: { readonly copied: number; readonly fraction: number } | undefined
  const startedMs = performance.now()
  const stopListening = onStopSignals(
    (signal) => {
      interruption = signal
      stopping.abort()
      slowEnd = setTimeout(() => {
        progress.end()
        context.say('waiting for Redis to answer; Ctrl-C again ends at once')
      }, 500)
    },
    (exitCode) => context.exitNow(exitCode),
  )
  try {
    const told = await run({
      signal: stopping.signal,
      onProgress({ copied, fraction }) {
        first ??= { copied, fraction }
        progress.update(copied - first.copied, (fraction - first.fraction) / Math.max(1e-9, 1 - first.fraction))
      },
    })
    return { told, interruption, seconds: (performance.now() - startedMs) / 1000 }
  } catch (error) {
    // It was told to end before there was anything to pause.
    if (interruption === undefined || codeOf(error) !== 'ERR_REPLAY') throw error
    throw new CliError('interrupted: nothing was changed', exitCodeOfSignal(interruption), { cause: error })
  } finally {
    stopListening()
    clearTimeout(slowEnd)
    progress.end()
  }
}

interface Asked {
  readonly command: Command
  readonly json: boolean
  /** What it had copied before. @default 0 */
  readonly copiedBefore?: number
}

/** Runs a replay to its end, or to where it is paused, and reports. @throws CliError if not all of it was done. */
export async function runReplay(
  context: CliContext,
  { command, json, copiedBefore = 0 }: Asked,
  run: (listening: Listening) => Promise<ReplayResult>,
): Promise<void> {
  const { PartlyDoneError } = await import('../../src/index.ts')
  const heard = await listening(context, 'jobs', run).catch((error: unknown) => {
    if (!(error instanceof PartlyDoneError)) throw error
    const again = resumeCommand(command, targetOfDone(error.done))
    throw new CliError(`${error.message}; to go on: ${again}`, EXIT.partly, { cause: error })
  })
  report(context, heard, { command, json, copiedBefore })
}

/** Of a replay that was not looked at yet only the place is known. */
function targetOfDone(done: unknown): { id: string; target: { stream: string; group: null } } {
  const { id, stream, target } = done as { id: string; stream?: string; target?: { stream: string } }
  return { id, target: { stream: target?.stream ?? stream ?? '', group: null } }
}

function report(
  context: CliContext,
  { told: result, interruption, seconds }: Heard<ReplayResult>,
  { command, json, copiedBefore = 0 }: Asked,
): void {
  const { id, source, target, copied, status } = result
  const isPaused = status === 'paused' || status === 'running'
  const again = isPaused ? resumeCommand(command, result) : null
  if (json) context.stdout.write(jsonLine({ ...result, command: again }))
  const done = `${plural(copied, 'job')} of ${source} into ${targetText(target)}`
  if (again !== null) {
    if (interruption === undefined) throw new CliError(`replay ${id} was paused; to go on: ${again}`, EXIT.partly)
    context.say(`paused: replayed ${done} so far; to go on: ${again}`)
    context.finish(exitCodeOfSignal(interruption))
    return
  }
  if (status === 'cancelled') throw new CliError(`replay ${id} was cancelled after ${done}`, EXIT.partly)
  const now = copied - copiedBefore
  const rate = seconds > 0 && now > 0 ? ` (${countText(now / seconds)}/s)` : ''
  context.say(`replay ${id}: replayed ${done} in ${spanText(seconds)}${rate}`)
  reportLeft(context, result)
}

/** @throws CliError for what could not be replayed. */
function reportLeft(context: CliContext, result: ReplayResult): void {
  const { copied, source, skippedReplays, unclear, refused, missing, unknownIds } = result
  if (skippedReplays > 0) {
    context.say(
      `left ${plural(skippedReplays, 'copy', 'copies')} of an earlier replay (--include-replays replays them too)`,
    )
  }
  if (unclear.count > 0) context.say(`left ${unclearText(unclear)}`)
  const left = [
    ...(refused.count === 0
      ? []
      : [
          `${plural(refused.count, 'job')} with too many fields to be copied (more than about 3,900): ${refused.firstIds.join(', ')}`,
        ]),
    ...(missing === 0 ? [] : [`${plural(missing, 'named job')} gone from the stream meanwhile`]),
    ...(unknownIds.length === 0 ? [] : [unknownText(unknownIds)]),
  ]
  if (left.length > 0) throw new CliError(`left ${left.join('; ')}`, copied > 0 ? EXIT.partly : EXIT.notFound)
  if (copied === 0) throw new CliError(`no job of ${source} matches`, EXIT.notFound)
}
