import { defineJob, handleAll, Producer, Worker } from 'millrace'
import { z } from 'zod'

/**
 * Jobs with types and checks: a producer cannot publish what the handler could not read, and an entry of last month's release
 * is brought to today's form before it is checked.
 */

const sendReceipt = defineJob('send-receipt', {
  stream: 'orders',
  schema: z.object({ order: z.number().int(), to: z.email(), at: z.coerce.date(), copies: z.number().default(1) }),
  // For types only: the handler has to give it back.
  result: z.object({ sent: z.number() }),
  version: 2,
  // The first release had the order as a text, and no time.
  upcast: {
    1: (old: { order: string; to: string }) => ({ order: Number(old.order), to: old.to, at: '2026-01-01T00:00:00Z' }),
  },
})

const remindCustomer = defineJob('remind-customer', {
  stream: 'orders',
  schema: z.object({ order: z.number() }),
})

/** One function for each job: leave one out, and it does not compile. */
const handlers = handleAll([sendReceipt, remindCustomer], {
  'send-receipt': ({ order, to, at, copies }) => {
    console.log(`${copies} receipt of order ${order} to ${to}, of ${at.getUTCFullYear()}`)
    return { sent: copies }
  },
  'remind-customer': ({ order }) => console.log(`reminder of order ${order}`),
})

const redis = process.env['REDIS_URL'] ?? 'redis://localhost:6379'
const producer = new Producer({ redis })
await producer.publish(sendReceipt, { order: 42, to: 'ada@example.com', at: new Date() })
// Worth nothing tomorrow.
await producer.publish(remindCustomer, { order: 42 }, { ttlMs: 24 * 3_600_000 })
await producer.close()
await new Worker({ redis, stream: 'orders', handlers }).run()
