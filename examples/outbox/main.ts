import { createServer } from 'node:http'
import { Producer } from 'millrace'
import { Pool } from 'pg'
import { Registry } from 'prom-client'
import { registerMetrics } from './metrics.ts'
import { OutboxRelay } from './relay.ts'

/**
 * A relay as a process of its own: `DATABASE_URL=… REDIS_URL=… METRICS_PORT=9800 node main.ts`. Run two, so that one may die.
 */

const connectionString = process.env['DATABASE_URL'] ?? 'postgres://localhost:5432/postgres'
// Without timeouts a query that PostgreSQL never answers would hold the relay for good. PostgreSQL's is the shorter one: what
// the relay has given up is then not executed later.
const pool = new Pool({
  connectionString,
  max: 2,
  connectionTimeoutMillis: 5_000,
  query_timeout: 30_000,
  statement_timeout: 25_000,
  keepAlive: true,
})
// An idle connection that breaks would end the process; the next query makes another.
pool.on('error', (error) => process.stderr.write(`outbox: a connection to PostgreSQL was lost: ${error.message}\n`))

const registry = new Registry()
const producer = new Producer({ redis: process.env['REDIS_URL'] ?? 'redis://localhost:6379', registry })
const relay = new OutboxRelay({ pool, producer, listen: { connectionString } })
registerMetrics(registry, relay, pool)
const metrics = createServer((_, response) => {
  registry.metrics().then(
    (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
    () => response.writeHead(500).end(),
  )
}).listen(Number(process.env['METRICS_PORT'] ?? 9800))

let isStopping = false
async function stop(): Promise<void> {
  if (isStopping) return
  isStopping = true
  metrics.close()
  await relay.stop()
  await producer.close({ timeoutMs: 5_000 })
  await pool.end()
  process.stdout.write(`stopped ${JSON.stringify(relay.counts)}\n`)
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void stop())
relay.start()
process.stdout.write('ready\n')
