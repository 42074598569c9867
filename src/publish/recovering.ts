import type { Connection } from '../redis/connection.ts'
import type { SpillFile } from './spill-files.ts'
import { SpillRecovery, type SpillRecoveryOptions } from './spill-recovery.ts'

/** Has the publishes of a producer wait for what was spilled to their stream before. */
export class Recovering {
  readonly #recovery: SpillRecovery
  readonly #waiting = new Set<() => void>()

  constructor(connection: Connection, files: readonly SpillFile[], options: SpillRecoveryOptions) {
    this.#recovery = new SpillRecovery(connection, files, { ...options, onReleased: () => this.#wake() })
  }

  start(): void {
    void this.#recovery.start()
  }

  /** Resolves when it may be that the stream need wait no longer; undefined if it need not. */
  before(stream: string): Promise<void> | undefined {
    if (!this.#recovery.holds(stream)) return undefined
    return new Promise((resolve) => {
      this.#waiting.add(resolve)
    })
  }

  async stop(): Promise<void> {
    this.#wake()
    await this.#recovery.stop()
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }
}
