import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { defineJob, handle, Producer, Worker } from 'millrace'

/**
 * The context of a request, kept through a job: what the worker logs has the id of the HTTP request that the job comes from. Neither
 * the code that publishes nor the handler knows of it; a header of the job carries it, also through retries.
 *
 * Both halves are here in one process, and would be in two: each needs its own lines only.
 *
 * To run it: `npx jiti examples/request-context.ts`, and `curl -X POST localhost:8080/orders -H 'x-request-id: r-1'`.
 */

const redis = process.env['REDIS_URL'] ?? 'redis://localhost:6379'
const requests = new AsyncLocalStorage<{ readonly id: string }>()
const log = (text: string) => console.log(`[${requests.getStore()?.id ?? 'no request'}] ${text}`)

const sendReceipt = defineJob<{ order: number }>('send-receipt', { stream: 'orders', retry: { delayMs: 100 } })

// The service.
const producer = new Producer({ redis }).use((publish, next) => {
  const request = requests.getStore()
  if (request !== undefined) publish.headers['request-id'] = request.id
  return next()
})

let orders = 0
const server = createServer((request, response) => {
  const given = request.headers['x-request-id']
  // It comes from outside: what cannot be a header of a job is not taken.
  const id = typeof given === 'string' && /^[\w-]{1,64}$/.test(given) ? given : randomUUID()
  requests.run({ id }, () => {
    takeOrder().then(
      () => response.writeHead(202).end(),
      () => response.writeHead(503).end(),
    )
  })
})

async function takeOrder(): Promise<void> {
  orders += 1
  await producer.publish(sendReceipt, { order: orders })
  log(`order ${orders} is taken`)
}

// The worker.
const worker = new Worker({
  redis,
  stream: 'orders',
  handlers: [
    handle(sendReceipt, ({ order }, job) => {
      log(`receipt for order ${order}, attempt ${job.attempt}`)
      if (job.attempt === 1) throw new Error('the mail server is busy')
    }),
  ],
})

worker.use(({ job }, next) => {
  const id = job.headers['request-id']
  return id === undefined ? next() : requests.run({ id }, next)
})

await worker.start()
server.listen(Number(process.env['PORT'] ?? 8080))
await once(server, 'listening')
console.log(`listening on port ${(server.address() as AddressInfo).port}`)

await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')])
server.close()
await producer.close()
await worker.stop()
