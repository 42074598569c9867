import { setTimeout as sleep } from 'node:timers/promises'
import { Ledger } from './publish-ledger.ts'
import { Load, type LoadOptions, readStream, watchSends } from './publish-load.ts'
import type { Ground } from './publish-faults.ts'

/** What a publish may be late by on a machine that has other things to do. Far less than for ever. */
const MARGIN_MS = 60_000

/** Producers of every kind that publish through one proxy, and the ledger of what became of their jobs. */
export class Field {
  readonly ledger = new Ledger()
  readonly #ground: Ground
  readonly #loads: Load[]
  readonly #probe: Load
  readonly #unwatch: () => void

  constructor(ground: Ground) {
    this.#ground = ground
    const { ledger } = this
    this.#unwatch = watchSends(ledger)
    const producer = { redis: ground.proxy.url }
    this.#probe = new Load({ name: 'the probe', ledger, producer, timeoutMs: 200 })
    const load = (name: string, timeoutMs: number, more: LoadOptions['producer'] = {}) =>
      new Load({ name, ledger, timeoutMs, producer: { ...producer, ...more } }).start()
    this.#loads = [
      load('a patient producer', 30_000),
      load('a hasty producer', 100),
      load('a buffering producer', 30_000, { durability: 'buffered', buffer: { maxAgeMs: 30_000 } }),
      load('a buffering producer of little patience', 100, { durability: 'buffered', buffer: { maxAgeMs: 100 } }),
      load('a producer that wants a replica', 30_000, { durability: { replicas: 1, timeoutMs: 20 } }),
    ]
  }

  /** Resolves when a publish that began after this call was called is in Redis. */
  async flows(): Promise<void> {
    while ((await this.#probe.publish()) !== 'in') await sleep(10)
  }

  /** Resolves when a publish that began after this was called has failed. */
  async stalls(): Promise<void> {
    while ((await this.#probe.publish()) === 'in') await sleep(10)
  }

  /** Publishes no more, waits for every outcome, and judges. */
  async settle(): Promise<Ledger> {
    const { ledger } = this
    await Promise.all(this.#loads.map((load) => load.stop()))
    while (ledger.open > 0) {
      ledger.checkOverdue(performance.now(), MARGIN_MS)
      await sleep(10)
    }
    await this.close()
    await readStream(this.#ground.admin, ledger)
    ledger.checkMissing()
    return ledger
  }

  async close(): Promise<void> {
    this.#unwatch()
    for (const load of [...this.#loads, this.#probe]) {
      await load.stop()
      await load.close(0)
    }
  }
}
