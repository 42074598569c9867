import { setTimeout as sleep } from 'node:timers/promises'
import { FatalError, type Job } from 'millrace'

/** What the workers of the picture run; see workload.ts for what is published. */

/** The time of most is short, and of a few it is not: as with what they call. */
async function work(ms: number, job: Job): Promise<void> {
  await sleep(ms * (0.5 + Math.random()) * (Math.random() < 0.05 ? 6 : 1), undefined, { signal: job.signal })
}

export const retry = { attempts: 4, delayMs: 1000, maxDelayMs: 15_000 }

// eslint-disable-next-line no-restricted-syntax -- what the command line loads is a default export
export default {
  'send-receipt': (_: unknown, job: Job) => work(180, job),
  'charge-card': async (data: { declined: boolean }, job: Job) => {
    await work(60, job)
    if (data.declined) throw new FatalError('the card was declined')
    if (Math.random() < 0.12) throw new Error('the bank did not answer')
  },
  'remind-customer': (_: unknown, job: Job) => work(40, job),
  'build-report': (_: unknown, job: Job) => work(4000, job),
  'send-mail': (_: unknown, job: Job) => work(90, job),
}
