import { setTimeout as sleep } from 'node:timers/promises'
import { defineJob, handle, Producer, Worker } from 'millrace'

/**
 * Bookings of an account, one at a time and in the order in which they were published; those of other accounts run beside them. Start it
 * several times: the order holds across all processes. The second booking of each account fails once, and the third waits for it.
 */

interface Booking {
  readonly account: string
  readonly number: number
}

const book = defineJob<Booking>('book', {
  stream: 'bookings',
  orderBy: 'data.account',
  retry: { attempts: 3, backoff: 'fixed', delayMs: 100 },
})

const redis = process.env['REDIS_URL'] ?? 'redis://localhost:6379'
const producer = new Producer({ redis })
const worker = new Worker({
  redis,
  stream: 'bookings',
  handlers: [
    handle(book, async ({ number }, job) => {
      await sleep(10)
      if (number === 2 && job.attempt === 1) throw new Error('the ledger is locked')
      console.log(`${job.key}: booking ${number}`)
    }),
  ],
})

for (const number of [1, 2, 3]) {
  for (const account of ['ada', 'bob']) await producer.publish(book, { account, number })
}
await producer.close()
await worker.run()
