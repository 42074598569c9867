import type { ChildProcess } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Registry } from 'prom-client'
import { freePort } from '../../cli/free-port.ts'
import { Producer } from '../../src/index.ts'
import { end, millrace } from './children.ts'

/**
 * A real run: two groups of one stream and one of another, jobs of five kinds in a wave, and in its middle an incident: the
 * workers of `orders/main` are killed while a campaign doubles what comes in, and come back some time later.
 */

const HANDLERS = fileURLToPath(new URL('./handlers.ts', import.meta.url))
const MEAN_PER_SECOND = 60
const BURST = 1500
/** Parts of the run. */
export const KILLED = 0.3
export const BACK = 0.55

export interface Scraped {
  readonly workers: readonly number[]
  readonly exporters: readonly number[]
}

export class Workload {
  readonly #redisUrl: string
  readonly #registry = new Registry()
  readonly #producer: Producer
  #server: Server | undefined
  #main: ChildProcess[] = []
  #mainPorts: number[] = []
  #failed = 0

  constructor(redisUrl: string) {
    this.#redisUrl = redisUrl
    this.#producer = new Producer({ redis: redisUrl, registry: this.#registry })
  }

  /** Starts everything. @returns the ports that are to be scraped. */
  async start(): Promise<Scraped> {
    // Its first job makes a stream; groups are made by their workers.
    await this.#producer.publish('send-receipt', { order: 0 }, { stream: 'orders' })
    await this.#producer.publish('send-mail', { mail: 0 }, { stream: 'mails' })
    this.#mainPorts = [await freePort(), await freePort()]
    this.#startMain()
    const [ledger, mails, exporter] = [await freePort(), await freePort(), await freePort()]
    this.#worker('orders', ledger, '--group', 'ledger', '--start', 'oldest', '--concurrency', '24')
    this.#worker('mails', mails, '--concurrency', '16')
    millrace(this.#redisUrl, 'exporter', '--port', String(exporter), '--host', '127.0.0.1', '--consumers', '--memory')
    const own = await this.#serve()
    return { workers: [...this.#mainPorts, ledger, mails, own], exporters: [exporter] }
  }

  /** Publishes for so long. @returns publishes that failed. */
  async run(seconds: number): Promise<number> {
    const [killedAt, backAt] = [Math.round(seconds * KILLED), Math.round(seconds * BACK)]
    for (let second = 0; second < seconds; second++) {
      if (second === killedAt) await Promise.all(this.#main.map((child) => end(child, 'SIGKILL')))
      if (second === backAt) this.#startMain()
      const isIncident = second >= killedAt && second < backAt
      const wave = 1 + 0.45 * Math.sin((2 * Math.PI * second) / Math.min(seconds / 2, 150))
      const count = Math.round(MEAN_PER_SECOND * wave * (isIncident ? 2 : 1)) + (second === killedAt ? BURST : 0)
      await Promise.all([sleep(1000), ...Array.from({ length: count }, (_, at) => this.#publish(second * 1000 + at))])
    }
    return this.#failed
  }

  async stop(): Promise<void> {
    this.#server?.close()
    await this.#producer.close({ timeoutMs: 1000 })
  }

  #startMain(): void {
    this.#main = this.#mainPorts.map((port) =>
      this.#worker('orders', port, '--start', 'oldest', '--processes', '2', '--concurrency', '12'),
    )
  }

  #worker(stream: string, port: number, ...flags: readonly string[]): ChildProcess {
    const metrics = ['--metrics-port', String(port), '--metrics-host', '127.0.0.1']
    return millrace(this.#redisUrl, 'worker', HANDLERS, '--stream', stream, ...metrics, ...flags)
  }

  async #publish(order: number): Promise<void> {
    const chance = Math.random()
    const [name, more] = KINDS.find(([, , share]) => chance < share) ?? ['send-mail', {}]
    const options = { stream: name === 'send-mail' ? 'mails' : 'orders', ...more }
    const data = { order, declined: Math.random() < 0.006 }
    await this.#producer.publish(name, data, options).catch(() => this.#failed++)
  }

  async #serve(): Promise<number> {
    const server = createServer((_, response) => {
      void this.#registry
        .metrics()
        .then((text) => response.setHeader('content-type', this.#registry.contentType).end(text))
    })
    this.#server = server
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return (server.address() as AddressInfo).port
  }
}

/** Name, options, and the upper end of its share. */
const KINDS: readonly (readonly [string, { delayMs?: number }, number])[] = [
  ['send-receipt', {}, 0.5],
  ['charge-card', {}, 0.68],
  ['remind-customer', { delayMs: 20_000 }, 0.78],
  ['build-report', {}, 0.79],
]
