import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Worker } from '../../src/index.ts'

/** Health checks as an orchestrator makes them. */

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

export interface HealthBody {
  live: boolean
  ready: boolean
  state: string
  reasons: string[]
}

/** One request, on a connection of its own. */
export function ask(port: number, path: string, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, method, agent: false, timeout: 30_000 }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => (text += part))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
      response.on('error', reject)
    })
    asked.on('timeout', () => asked.destroy(new Error(`no answer to ${method} ${path} within 30 s`)))
    asked.on('error', reject)
    asked.end()
  })
}

export async function bodyOf(port: number, path: string): Promise<HealthBody> {
  return JSON.parse((await ask(port, path)).text) as HealthBody
}

export function portOf({ healthAddress }: Worker): number {
  if (healthAddress === undefined) throw new Error('this worker answers no health checks')
  return healthAddress.port
}

export interface Watched {
  /** Everything `/livez` and `/readyz` said, when it changed, in ms from the beginning. */
  readonly log: { atMs: number; live: number; ready: number; reasons: string[] }[]
  now(): { live: number; ready: number }
  /** When it was first so, from `fromMs` on. */
  first(what: 'live' | 'ready', status: number, fromMs?: number): number | undefined
  elapsedMs(): number
  stop(): Promise<void>
}

/** Asks both four times a second until it is stopped. */
export function watchHealth(port: number): Watched {
  const startedAtMs = performance.now()
  const elapsedMs = () => performance.now() - startedAtMs
  const log: Watched['log'] = []
  const ending = new AbortController()
  const loop = (async () => {
    while (!ending.signal.aborted) {
      const [live, ready] = await Promise.all([ask(port, '/livez'), ask(port, '/readyz')])
      const last = log.at(-1)
      if (last?.live !== live.status || last.ready !== ready.status) {
        const { reasons } = JSON.parse(ready.text) as HealthBody
        log.push({ atMs: elapsedMs(), live: live.status, ready: ready.status, reasons })
      }
      await sleep(250, undefined, { signal: ending.signal }).catch(() => {})
    }
  })()
  // Told by stop(); until then a failure is not unhandled.
  loop.catch(() => {})
  return {
    log,
    elapsedMs,
    now: () => ({ live: log.at(-1)?.live ?? 0, ready: log.at(-1)?.ready ?? 0 }),
    first: (what, status, fromMs = 0) => log.find((row) => row[what] === status && row.atMs >= fromMs)?.atMs,
    async stop() {
      ending.abort()
      await loop
    },
  }
}
