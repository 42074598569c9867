import { setTimeout as sleep } from 'node:timers/promises'
import { defineJob, handle } from 'millrace'

/** The handlers of the stack in docker-compose.yml. */

const sendReceipt = defineJob<{ order: number }>('send-receipt', {
  stream: 'orders',
  timeoutMs: 30_000,
  retry: { attempts: 5, delayMs: 2_000 },
})

export default [
  handle(sendReceipt, async ({ order }, job) => {
    // As long as a mail server takes.
    await sleep(200, undefined, { signal: job.signal })
    console.log(`receipt for order ${order} sent (job ${job.id}, delivery ${job.deliveries})`)
  }),
]
