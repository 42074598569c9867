import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Producer } from 'millrace'
import { Registry } from 'prom-client'

/**
 * Jobs for examples/handlers.ts, so that the dashboards have something to show: some twenty a second, in waves of five
 * minutes, with a burst at the top of each. Most are quick; some fail and are tried again, some are for later, one is slow,
 * and a few are beyond help.
 */

const MEAN_PER_SECOND = 20
const WAVE_SECONDS = 300
const BURST = 400
const METRICS_PORT = 9800

const registry = new Registry()
const producer = new Producer({ redis: process.env['REDIS_URL'] ?? 'redis://localhost:6379', registry })
const server = createServer((request, response) => {
  if (request.url !== '/metrics') return void response.writeHead(404).end()
  registry.metrics().then(
    (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
    () => response.writeHead(500).end(),
  )
}).listen(METRICS_PORT)

let isStopping = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (isStopping = true))

let order = 0
for (let second = 0; !isStopping; second++) {
  const wave = 1 + 0.6 * Math.sin((2 * Math.PI * second) / WAVE_SECONDS)
  const isTop = second % WAVE_SECONDS === WAVE_SECONDS / 4
  const count = Math.round(MEAN_PER_SECOND * wave) + (isTop ? BURST : 0)
  await Promise.all([sleep(1000), ...Array.from({ length: count }, publishOne)])
}
server.close()
await producer.close({ timeoutMs: 5000 })

/** A Redis that is away for a while costs what is published meanwhile, and the traffic goes on. */
async function publishOne(): Promise<void> {
  const own = ++order
  try {
    await publish(own, Math.random())
  } catch (error) {
    console.error(`order ${own}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function publish(order: number, chance: number): Promise<unknown> {
  const stream = 'orders'
  if (chance < 0.7) return producer.publish('send-receipt', { order }, { stream })
  if (chance < 0.88) return producer.publish('charge-card', { order, declined: Math.random() < 0.01 }, { stream })
  if (chance < 0.98) {
    return producer.publish(
      'remind-customer',
      { order },
      { stream, delayMs: 5000 + Math.round(Math.random() * 25_000) },
    )
  }
  return producer.publish('build-report', { seconds: 2 + Math.random() * 8 }, { stream })
}
