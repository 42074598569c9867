import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { MillraceError, Producer, type UnpublishedJob } from 'millrace'
import { Registry } from 'prom-client'

/**
 * A service that takes orders and answers at once, whatever Redis does: while it is away orders wait in the memory of this
 * process, and those that a shutdown finds there wait in a file, which the next start publishes first.
 *
 *     POST /orders {"order": 42}    202 {"ref": …}; 503 while the buffer is full: come back later
 *     GET /healthz                  200, also while Redis is away, since this service does what it is for; 503 once it stops
 *     GET /metrics                  for Prometheus; its alerts tell when jobs wait for long
 *
 * To run it: `npx jiti examples/service.ts`.
 *
 * A caller who got no answer sends the order again with the same `Idempotency-Key`, and there is still one job.
 */

const MOST_BODY_BYTES = 64 * 1024
/** How long a stop waits for Redis before what is left goes to the file. */
const CLOSE_MS = Number(process.env['CLOSE_MS'] ?? 5000)

const registry = new Registry()
const producer = new Producer({
  redis: process.env['REDIS_URL'] ?? 'redis://localhost:6379',
  durability: 'buffered',
  buffer: {
    // As many as come in the longest outage that it shall bear, if the memory allows.
    maxJobs: Number(process.env['BUFFER_JOBS'] ?? 100_000),
    maxAgeMs: 3_600_000,
    spillFile: process.env['SPILL_FILE'] ?? 'service.spill',
  },
  registry,
})
producer.on('job:unpublished', keep)
producer.on('buffer:high', ({ jobs, maxJobs }) => console.error(`${jobs} orders wait for Redis; ${maxJobs} may`))
producer.on('spill:recovered', ({ file, published, left }) =>
  console.error(
    `${published} orders of ${file} are published${left === undefined ? '' : `; see ${left} for the rest`}`,
  ),
)

let isStopping = false
const server = createServer((request, response) => {
  // Else a caller that keeps its connection busy keeps this process, too.
  if (isStopping) response.setHeader('connection', 'close')
  route(request, response).catch((error: unknown) => refuse(response, error))
})
server.listen(Number(process.env['PORT'] ?? 8080))
await once(server, 'listening')
console.log(`listening on port ${(server.address() as AddressInfo).port}`)

const [signal] = (await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')])) as [string]
console.error(`${signal}: stopping`)
isStopping = true
await new Promise((resolve) => server.close(resolve))
const { spilled, spillFile = '' } = await producer.close({ timeoutMs: CLOSE_MS })
if (spilled > 0) console.error(`${spilled} orders wait in ${spillFile} for the next start`)

async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method, url } = request
  if (method === 'POST' && url === '/orders') return acceptOrder(request, response)
  if (url === '/healthz') return answer(response, isStopping ? 503 : 200, { isStopping })
  if (url !== '/metrics') return answer(response, 404, { error: 'there are /orders, /healthz and /metrics' })
  response.writeHead(200, { 'content-type': registry.contentType }).end(await registry.metrics())
}

async function acceptOrder(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (Number(request.headers['content-length'] ?? Infinity) > MOST_BODY_BYTES) {
    return answer(response, 413, { error: `expected a content-length of at most ${MOST_BODY_BYTES}` })
  }
  const order = orderOf(await text(request))
  if (order === undefined) return answer(response, 400, { error: 'expected a JSON object whose `order` is a number' })
  const key = request.headers['idempotency-key']
  const token = typeof key === 'string' ? { idempotencyToken: key } : {}
  const { ref } = await producer.publish('send-receipt', { order }, { stream: 'orders', ...token })
  answer(response, 202, { ref })
}

function orderOf(body: string): number | undefined {
  try {
    const { order } = JSON.parse(body) as { order?: unknown }
    return typeof order === 'number' ? order : undefined
  } catch {
    return undefined
  }
}

/** What the caller did wrong is told apart from what will be right later. */
function refuse(response: ServerResponse, error: unknown): void {
  const code = error instanceof MillraceError ? error.code : undefined
  if (code === 'ERR_BUFFER_FULL' || code === 'ERR_PRODUCER_CLOSED') {
    response.setHeader('retry-after', '5')
    return answer(response, 503, { error: 'no more orders can be taken now' })
  }
  if (code === 'ERR_OPTION') return answer(response, 400, { error: 'expected a plain `Idempotency-Key`' })
  console.error(error)
  answer(response, 500, { error: 'the order was not taken' })
}

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`)
}

/** The last place for an order that was answered with 202: whoever reads the log can publish it again. */
function keep({ spilled, job, data, options, published, error }: UnpublishedJob): void {
  if (!spilled) console.error(`unpublished: ${JSON.stringify({ job, data, options, published, error: error.code })}`)
}
