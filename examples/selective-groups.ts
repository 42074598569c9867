import { defineJob, handle, Producer, Worker } from 'millrace'

/**
 * One stream, two groups, each with the jobs that it wants: `shipping` those about orders, `mailing` receipts alone. What a group
 * does not want is settled as skipped: no error, nothing to the other group, and counted.
 *
 * To run it: `npx jiti examples/selective-groups.ts`.
 */

const redis = process.env['REDIS_URL'] ?? 'redis://localhost:6379'
const stream = 'sales'

const orderPlaced = defineJob<{ order: number }>('order.placed', { stream })
const orderCancelled = defineJob<{ order: number }>('order.cancelled', { stream })
const receiptDue = defineJob<{ order: number }>('receipt.due', { stream })

const shipping = new Worker({
  redis,
  stream,
  group: 'shipping',
  startAt: 'oldest',
  accept: ['order.*'],
  handlers: [
    handle(orderPlaced, ({ order }) => console.log(`shipping: packs order ${order}`)),
    handle(orderCancelled, ({ order }) => console.log(`shipping: leaves order ${order}`)),
  ],
})
const mailing = new Worker({
  redis,
  stream,
  group: 'mailing',
  startAt: 'oldest',
  accept: ['receipt.due'],
  handlers: [handle(receiptDue, ({ order }) => console.log(`mailing: sends the receipt of order ${order}`))],
})
await Promise.all([shipping.start(), mailing.start()])

const producer = new Producer({ redis })
await producer.publish(orderPlaced, { order: 1 })
await producer.publish(receiptDue, { order: 1 })
await producer.publish(orderPlaced, { order: 2 })
await producer.publish(orderCancelled, { order: 2 })
await producer.close()

for (const worker of [shipping, mailing]) {
  while (worker.counts.completed + worker.counts.skipped < 4) await new Promise((resolve) => setTimeout(resolve, 20))
  await worker.stop()
  console.log(`${worker.group}: ${worker.counts.completed} completed, ${worker.counts.skipped} skipped`)
}
