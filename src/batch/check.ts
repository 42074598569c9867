import { OptionError } from '../errors.ts'
import type { Handler } from '../job.ts'

/** Whether a worker can fill the batches of its handlers, and jobs can wait for them. @throws OptionError */
export function checkBatches(
  handlers: ReadonlyMap<string, Handler>,
  worker: { concurrency: number; timeoutMs: number | false },
): void {
  for (const [name, { job, batch }] of handlers) {
    if (batch === undefined) continue
    const { size, lingerMs } = batch
    if (size > worker.concurrency) {
      throw new OptionError(
        `expected \`concurrency\` to be at least the \`size\` of the batches of ${name} (${size}), got ${worker.concurrency}: ` +
          'each job of a batch takes a slot',
      )
    }
    const timeoutMs = job.timeoutMs ?? worker.timeoutMs
    if (timeoutMs !== false && lingerMs >= timeoutMs) {
      throw new OptionError(
        `expected \`lingerMs\` of the batches of ${name} to be below its \`timeoutMs\` (${timeoutMs}), got ${lingerMs}: ` +
          'the wait is part of the time of a job',
      )
    }
  }
}
