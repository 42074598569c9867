import { Batches } from '../batch/batches.ts'
import { MOST_SIZE } from '../batch/handle-batch.ts'
import { HeldSlots } from '../batch/held-slots.ts'
import { OptionError } from '../errors.ts'
import type { Handler, Handlers } from '../job.ts'
import { shown } from '../options.ts'
import { checkAsked, type Asked, type RunJobOptions } from './asked.ts'
import { VirtualClock } from './clock.ts'
import { publishedEntry } from './entries.ts'
import { LoneWorker, type JobRun } from './lone-worker.ts'

/** Jobs that a test runs together. */
export interface RunBatchOptions<Data = unknown, State = object> extends Omit<
  RunJobOptions<Data, State>,
  'data' | 'id' | 'abort'
> {
  /** The payloads of 1 to 1000 jobs, in the order in which they come: the handler gets what JSON makes of them. */
  data: readonly NoInfer<Data>[]
}

/**
 * Runs the `handleBatch` of a job with several jobs at once, each as `runJob` does: in as many batches as its `size` makes of them. Nothing
 * waits for jobs that do not come.
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
  const gather = (resolved: Map<string, Handler>): Map<string, Handler> => {
    batches ??= new Batches(resolved, { slots: [slots], goesAlone: () => false, serverMs: () => clock.nowMs })
    return new Map(batches.handlers)
  }
  const asked = data.map((one: Data, at): Asked => {
    const job = { ...options, clock, data: one, id: `${clock.nowMs}-${at}` }
    return checkAsked('runBatch', handlers, job as RunJobOptions<Data, State>, gather)
  })
  checkGathered(asked[0])
  const entries = asked.map((one) => publishedEntry(one))
  return Promise.all(
    asked.map(async (one, at) => {
      const { run } = await new LoneWorker(one).run(entries[at] as (typeof entries)[number])
      slots.total -= 1
      slots.release()
      return run
    }),
  )
}

function checkGathered(asked: Asked | undefined): void {
  const { job } = asked?.job ?? { job: '' }
  const name = typeof job === 'string' ? job : job.name
  if (asked?.worker.handlers.get(name)?.batch !== undefined) return
  throw new OptionError(`expected a handleBatch for job ${name}, got none: runJob runs a handler of single jobs`)
}
