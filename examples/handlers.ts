import { setTimeout as sleep } from 'node:timers/promises'
import { defineJob, FatalError, handle } from 'millrace'

/** The handlers of the stack in docker-compose.yml; what examples/traffic.ts publishes are jobs for them. */

const sendReceipt = defineJob<{ order: number }>('send-receipt', {
  stream: 'orders',
  timeoutMs: 30_000,
  retry: { attempts: 5, delayMs: 2_000 },
})

const chargeCard = defineJob<{ order: number; declined: boolean }>('charge-card', {
  stream: 'orders',
  timeoutMs: 10_000,
  retry: { attempts: 4, delayMs: 1_000, maxDelayMs: 10_000 },
})

const remindCustomer = defineJob<{ order: number }>('remind-customer', { stream: 'orders', timeoutMs: 10_000 })

const buildReport = defineJob<{ seconds: number }>('build-report', { stream: 'orders', timeoutMs: 60_000 })

export default [
  handle(sendReceipt, async ({ order }, job) => {
    // As long as a mail server takes.
    await sleep(200, undefined, { signal: job.signal })
    console.log(`receipt for order ${order} sent (job ${job.id}, delivery ${job.deliveries})`)
  }),
  handle(chargeCard, async ({ order, declined }, job) => {
    await sleep(80, undefined, { signal: job.signal })
    // No further attempt makes it a better card.
    if (declined) throw new FatalError(`the card of order ${order} was declined`)
    // A bank that is down now and then.
    if (Math.random() < 0.2) throw new Error('the bank did not answer')
  }),
  handle(remindCustomer, async (_, job) => {
    await sleep(50, undefined, { signal: job.signal })
  }),
  handle(buildReport, async ({ seconds }, job) => {
    await sleep(seconds * 1000, undefined, { signal: job.signal })
  }),
]
