import { defineJob, handle, Producer, Worker } from 'millrace'

/**
 * A job that publishes the next one. Kill it whenever you like: every order is packed once, and none is forgotten. Both
 * streams have the tag `orders`, so the next job is appended in the step that settles the one before.
 */

const redis = process.env['REDIS_URL'] ?? 'redis://localhost:6379'
const placeOrder = defineJob<{ order: number }>('place-order', { stream: 'orders' })
const packOrder = defineJob<{ order: number; placed: string }>('pack-order', { stream: '{orders}:packing' })

const worker = new Worker({
  redis,
  streams: [{ stream: 'orders' }, { stream: '{orders}:packing' }],
  handlers: [
    handle(placeOrder, ({ order }, job) => {
      // Kept until this run has completed: of the one that fails next there is nothing to be packed.
      job.publish(packOrder, { order, placed: job.id })
      if (order % 2 === 0 && job.attempt === 1) throw new Error(`order ${order} cannot be placed yet`)
    }),
    handle(packOrder, ({ order }) => console.log(`order ${order} is packed`)),
  ],
  retry: { attempts: 3, backoff: 'fixed', delayMs: 100 },
})

const producer = new Producer({ redis })
for (let order = 1; order <= 4; order++) await producer.publish(placeOrder, { order })
await producer.close()

await worker.run()
