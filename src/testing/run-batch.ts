import type { Batches } from '../batch/batches.ts'
import { MOST_SIZE } from '../batch/handle-batch.ts'
import { HeldSlots } from '../batch/held-slots.ts'
import { turnText } from '../decide.ts'
import { OptionError } from '../errors.ts'
import type { Handler, Handlers } from '../job.ts'
import { shown } from '../options.ts'
import { firstOf } from '../wire.ts'
import { batchesOf, checkAsked, type Asked, type RunJobOptions } from './asked.ts'
import { VirtualClock } from './clock.ts'
import { publishedEntry, type Entry } from './entries.ts'
import { LoneWorker, type JobRun } from './lone-worker.ts'

/** Jobs that a test runs together. */
export interface RunBatchOptions<Data = unknown, State = object> extends Omit<
  RunJobOptions<Data, State>,
  'data' | 'id' | 'abort'
> {
  /** The payloads of 1 to 1000 jobs, in the order in which they come: the handler gets what JSON makes of them. */
  data: readonly NoInfer<Data>[]
}

/** One of them. */
interface Batched {
  /** Its place among them. */
  readonly at: number
  readonly asked: Asked
  readonly entry: Entry
}

/**
 * Runs the `handleBatch` of a job with several jobs at once, each as `runJob` does: in as many batches as its `size` makes of them. Nothing
 * waits for jobs that do not come. Of those of one key each begins when the one before it has its outcome.
 * @returns what became of each, in their order.
 * @throws as `runJob`; OptionError where the job has no `handleBatch`.
 */
export async function runBatch<Data = unknown, State = object>(
  handlers: Handlers<State>,
  { data, ...options }: RunBatchOptions<Data, State>,
): Promise<JobRun[]> {
  if (!Array.isArray(data) || data.length === 0 || data.length > MOST_SIZE) {
    const got = Array.isArray(data) ? `${data.length} of them` : shown(data)
    throw new OptionError(`expected \`data\` to be a list of 1 to ${MOST_SIZE} payloads, got ${got}`)
  }
  const clock = options.clock ?? new VirtualClock()
  const slots = new HeldSlots(data.length)
  let batches: Batches | undefined
  const gather = (resolved: Map<string, Handler>): Batches =>
    (batches ??= batchesOf(resolved, slots, { clock, maxDeliveries: () => all[0]?.worker.maxDeliveries ?? Infinity }))
  const all = data.map((one: Data, at): Asked => {
    const job = { ...options, clock, data: one, id: `${clock.nowMs}-${at}` }
    return checkAsked('runBatch', handlers, job as RunJobOptions<Data, State>, gather)
  })
  checkGathered(all[0])
  const lines = linesOf(publishedTogether(all, clock))
  // Of a line one job at a time is there to come.
  slots.total = lines.length
  const runs: JobRun[] = []
  await Promise.all(
    lines.map(async (line) => {
      await runLine(line, (at, run) => (runs[at] = run))
      slots.total -= 1
      slots.release()
    }),
  )
  return runs
}

function checkGathered(asked: Asked | undefined): void {
  const { job } = asked?.job ?? { job: '' }
  if (asked !== undefined && handlerOf(asked)?.batch !== undefined) return
  const name = typeof job === 'string' ? job : job.name
  throw new OptionError(`expected a handleBatch for job ${name}, got none: runJob runs a handler of single jobs`)
}

function handlerOf({ job: { job }, worker }: Asked): Handler | undefined {
  return worker.handlers.get(typeof job === 'string' ? job : job.name)
}

/** At one moment: what the clock goes forward by for the delay of one is no time for the others. */
function publishedTogether(all: readonly Asked[], clock: VirtualClock): Batched[] {
  const publishedMs = clock.nowMs
  return all.map((asked, at) => {
    const own = new VirtualClock(publishedMs)
    const entry = publishedEntry({ ...asked, clock: own })
    clock.advanceTo(own.nowMs)
    return { at, asked, entry }
  })
}

/** Those of each key, in their order; one without a key is a line by itself. */
function linesOf(published: readonly Batched[]): Batched[][] {
  const lines = new Map<string, Batched[]>()
  for (const one of published) {
    const key = firstOf(one.entry.fields, 'key')
    const name = key === undefined ? `at ${one.at}` : `of ${key}`
    const line = lines.get(name)
    if (line === undefined) lines.set(name, [one])
    else line.push(one)
  }
  return [...lines.values()]
}

/** Tells what becomes of the jobs of a line, one after the other. One that keeps its turn has those behind it wait. */
async function runLine(line: readonly Batched[], tell: (at: number, run: JobRun) => void): Promise<void> {
  let first: { readonly id: string; readonly run: JobRun } | undefined
  for (const { at, asked, entry } of line) {
    if (first !== undefined) {
      const { delayMs = 0 } = first.run
      tell(at, { outcome: 'waits', delayMs, why: turnText(first.id) })
      continue
    }
    const { run, delivery } = await new LoneWorker(asked).run(entry)
    tell(at, run)
    if (!givesTurn(run, asked)) first = { id: delivery.id, run }
  }
}

function givesTurn({ outcome }: JobRun, asked: Asked): boolean {
  if (outcome === 'retry') return handlerOf(asked)?.job.onFailure === 'skip'
  return outcome === 'completed' || outcome === 'skipped' || outcome === 'dead' || outcome === 'cancelled'
}
