import { OptionError } from '../errors.ts'
import type { Handlers } from '../job.ts'
import { checkAsked, type RunJobOptions, type RunToEndOptions } from './asked.ts'
import { publishedEntry, retriedEntry, waitedEntry } from './entries.ts'
import { LoneWorker, type JobRun } from './lone-worker.ts'

/** Beyond these nobody waits for the end of a job in a test: a retry that never ends would take all memory. */
const MOST_RUNS = 1000

/** One of the runs of a job, and when it was. */
export interface TimedRun extends JobRun {
  /** When it began, in ms since the epoch. */
  readonly atMs: number
  readonly attempt: number
}

/** What became of a job in the end, and all of its runs. */
export interface JobRuns extends JobRun {
  /** From when it was published to its end, in ms. */
  readonly tookMs: number
  /** In their order, the last one too. */
  readonly runs: readonly TimedRun[]
}

/**
 * Runs the handler of a job as a worker does, through the worker's code and without Redis: the payload through JSON, versions and
 * schema, deadline, limits' keys, middleware, timeout and signal, and what is decided of a failure.
 * @returns what became of it; an error of the handler is in there, and not thrown.
 * @throws OptionError on what `new Worker` would not take; PublishError on what `publish` would not.
 */
export async function runJob<Data = unknown, State = object>(
  handlers: Handlers<State>,
  options: RunJobOptions<Data, State>,
): Promise<JobRun> {
  const asked = checkAsked('runJob', handlers, options)
  const entry = publishedEntry(asked)
  return (await new LoneWorker(asked).run(entry)).run
}

/**
 * Runs one attempt after the other, as `runJob` does, until nothing is left to be tried: time goes on by itself between them.
 * @throws as `runJob`; OptionError for a job that has not ended after 1000 runs.
 */
export async function runToEnd<Data = unknown, State = object>(
  handlers: Handlers<State>,
  options: RunToEndOptions<Data, State>,
): Promise<JobRuns> {
  const asked = checkAsked('runToEnd', handlers, options)
  const { clock } = asked
  const publishedMs = clock.nowMs
  const worker = new LoneWorker(asked)
  const runs: TimedRun[] = []
  for (let entry = publishedEntry(asked); ;) {
    const atMs = clock.nowMs
    const { run, delivery, renewed } = await worker.run(entry)
    const { id, attempt, firstFailedMs = clock.nowMs } = delivery
    runs.push({ atMs, attempt, ...run })
    if (run.outcome !== 'retry' && run.outcome !== 'waits') return { ...run, tookMs: clock.nowMs - publishedMs, runs }
    if (runs.length === MOST_RUNS) {
      throw new OptionError(
        `expected the job to end within ${MOST_RUNS} runs: give it fewer attempts here, by \`worker.retry\``,
      )
    }
    clock.advance(run.delayMs ?? 0)
    entry =
      run.outcome === 'retry'
        ? retriedEntry(entry, { id, attempt, firstFailedMs }, clock.nowMs)
        : waitedEntry(entry, id, renewed, clock.nowMs)
  }
}
