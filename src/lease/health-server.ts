import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { sleep } from '../clock.ts'
import type { WorkerHealth } from './health.ts'

/**
 * Answers `/livez` and `/readyz` from the keeper's thread: a server in the main thread would be silent exactly while a handler
 * blocks the event loop, and whoever asks would take a worker at work for a dead one.
 */

export interface HealthAddress {
  readonly host: string
  readonly port: number
}

/** Where to listen; without a host on all interfaces, port 0 is any free one. */
export interface HealthPlace {
  readonly host: string | undefined
  readonly port: number
}

const RETRY_MS = 1000

export class HealthServer {
  readonly #health: () => WorkerHealth
  readonly #closed = new AbortController()
  #server: Server | undefined

  constructor(health: () => WorkerHealth) {
    this.#health = health
  }

  /** Begins to listen; rejects with what the system says if that is not possible. */
  async listen({ host, port }: HealthPlace): Promise<HealthAddress> {
    const server = createServer((request, response) => this.#answer(request, response))
    // Who connects and says nothing must not hold a socket for minutes.
    server.headersTimeout = 5000
    server.requestTimeout = 5000
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.once('listening', resolve)
      server.listen({ port, host, exclusive: true })
    })
    // Unheard, an error of the listening socket would end the thread that keeps the leases.
    server.on('error', () => {})
    server.unref()
    const { address, port: bound } = server.address() as AddressInfo
    this.#server = server
    if (this.#closed.signal.aborted) server.close()
    return { host: address, port: bound }
  }

  /** The same, tried again until it succeeds: who took the port may let it go. `failed` hears of every try. */
  async listenAtLast(place: HealthPlace, failed: (error: unknown) => void): Promise<HealthAddress | undefined> {
    while (!this.#closed.signal.aborted) {
      try {
        return await this.listen(place)
      } catch (error) {
        failed(error)
        await sleep(RETRY_MS, this.#closed.signal)
      }
    }
    return undefined
  }

  /** Listens no more; open connections are closed. */
  close(): void {
    this.#closed.abort()
    this.#server?.close()
    this.#server?.closeAllConnections()
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url?.split('?', 1)[0]
    if (path !== '/livez' && path !== '/readyz') {
      return reply(response, 404, { error: 'not found: there are /livez and /readyz' })
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD')
      return reply(response, 405, { error: `expected GET or HEAD, got ${request.method}` })
    }
    const health = this.#health()
    const isGood = path === '/livez' ? health.live : health.ready
    reply(response, isGood ? 200 : 503, health)
  }
}

/** Every connection ends with its answer: one that is kept open would have to be cut when the worker stops. */
function reply(response: ServerResponse, status: number, body: object): void {
  const text = `${JSON.stringify(body)}\n`
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
    Connection: 'close',
  })
  response.end(text)
}
