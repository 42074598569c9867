import { Client, type ClientConfig } from 'pg'
import { backoffMs, pause } from './pause.ts'

/**
 * Tells when a transaction with new rows has committed, over a connection of its own that is made anew when it breaks. It is
 * for speed alone: what it misses the relay finds when it next looks.
 */
export class Wakeups {
  readonly #config: ClientConfig
  readonly #told: { wake: () => void; failed: (error: unknown) => void }
  readonly #stopping = new AbortController()
  readonly #stopped = new Promise<void>((resolve) => this.#stopping.signal.addEventListener('abort', () => resolve()))
  #running: Promise<void> | undefined

  constructor(config: ClientConfig, told: { wake: () => void; failed: (error: unknown) => void }) {
    this.#config = { connectionTimeoutMillis: 5_000, keepAlive: true, ...config }
    this.#told = told
  }

  start(): void {
    this.#running ??= this.#run()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    for (let tries = 0; !signal.aborted; tries++) {
      try {
        await this.#listen(() => (tries = 0))
      } catch (error) {
        this.#told.failed(error)
      }
      await pause(backoffMs(tries), signal)
    }
  }

  /** Resolves when it is stopped. @throws Error when the connection breaks. */
  async #listen(listening: () => void): Promise<void> {
    const client = new Client(this.#config)
    const broken = new Promise<never>((_, reject) => {
      client.on('error', reject)
      client.on('end', () => reject(new Error('the connection that listens for new rows was closed')))
    })
    // It may break before anybody waits for it.
    broken.catch(() => {})
    try {
      await client.connect()
      client.on('notification', () => this.#told.wake())
      await client.query('LISTEN outbox')
      listening()
      // For what was committed before.
      this.#told.wake()
      await Promise.race([this.#stopped, broken])
    } finally {
      await client.end().catch(() => {})
    }
  }
}
