import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { CliError, codeOf, EXIT } from './exit.ts'

/** What a path answers. */
export interface Page {
  readonly status: number
  readonly type: string
  readonly body: string
}

export type Pages = Readonly<Record<string, () => Promise<Page>>>

/** The options that say where to listen, as the errors of listening name them. */
export interface ListenFlags {
  readonly port: string
  readonly host: string
}

/**
 * A small HTTP server for machines that ask: a scraper, a probe. It answers GET on a few paths and nothing else, and a page
 * that fails is a 500 that tells no more than that.
 */
export class MetricsServer {
  readonly #server: Server
  readonly #pages: Pages
  readonly #flags: ListenFlags

  /** @param flags what the command line calls port and address. */
  constructor(pages: Pages, flags: ListenFlags) {
    this.#pages = pages
    this.#flags = flags
    this.#server = createServer((request, response) => void this.#answer(request, response))
    // Scrapers and probes are few and near; whoever is slow must not hold a socket.
    this.#server.requestTimeout = 10_000
    this.#server.headersTimeout = 10_000
    // Of a connection that could not be taken; unheard, it would end the pool. One of listening is told by start.
    this.#server.on('error', () => {})
  }

  /**
   * Listens. @returns the port, of which 0 had left the choice to the system.
   * @throws CliError where it cannot.
   */
  async start(port: number, host: string | undefined): Promise<number> {
    try {
      this.#server.listen(port, host)
      await once(this.#server, 'listening')
    } catch (error) {
      throw cannotListen({ port, host }, this.#flags, error)
    }
    return (this.#server.address() as AddressInfo).port
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return
    this.#server.close()
    this.#server.closeAllConnections()
    await once(this.#server, 'close')
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.resume()
    response.setHeader('Cache-Control', 'no-store')
    response.setHeader('X-Content-Type-Options', 'nosniff')
    const page = await this.#pageOf(request)
    if (page.status === 405) response.setHeader('Allow', 'GET, HEAD')
    response.writeHead(page.status, { 'Content-Type': page.type, 'Content-Length': Buffer.byteLength(page.body) })
    response.end(request.method === 'HEAD' ? undefined : page.body)
  }

  async #pageOf({ method, url = '/' }: IncomingMessage): Promise<Page> {
    const path = url.split('?', 1)[0] ?? '/'
    const page = Object.hasOwn(this.#pages, path) ? this.#pages[path] : undefined
    if (page === undefined) return text(404, `not found; there are ${Object.keys(this.#pages).join(', ')}`)
    if (method !== 'GET' && method !== 'HEAD') return text(405, 'only GET and HEAD are answered')
    try {
      return await page()
    } catch {
      return text(500, 'this page failed')
    }
  }
}

export function text(status: number, line: string): Page {
  return { status, type: 'text/plain; charset=utf-8', body: `${line}\n` }
}

/** Where it listens, as a line for people. */
export function servedAt(port: number, host: string | undefined): string {
  const shown = host?.includes(':') === true ? `[${host}]` : (host ?? 'localhost')
  return `metrics and health: http://${shown}:${port}/metrics /livez /readyz`
}

function cannotListen(
  { port, host }: { port: number; host: string | undefined },
  flags: ListenFlags,
  error: unknown,
): CliError {
  const why = {
    EADDRINUSE: `another process listens there; end it or choose another ${flags.port}`,
    EACCES: `it is not permitted; choose a ${flags.port} of 1024 or more`,
    EADDRNOTAVAIL: `this machine has no such address; choose another ${flags.host}`,
    ENOTFOUND: `there is no such host; choose another ${flags.host}`,
  }[codeOf(error) ?? '']
  const where = host === undefined ? `port ${port}` : `${host} port ${port}`
  const reason = why ?? (error instanceof Error ? error.message : String(error))
  return new CliError(`cannot listen on ${where} for metrics: ${reason}`, EXIT.failed, { cause: error })
}
