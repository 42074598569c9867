import type { Pool } from 'pg'
import { Counter, Gauge, type Registry } from 'prom-client'
import type { OutboxRelay, RelayCounts } from './relay.ts'
import { readBacklog, type Backlog } from './rows.ts'

const RESULTS: readonly (keyof RelayCounts)[] = ['published', 'duplicates', 'setAside', 'givenBack']

const GAUGES: readonly (readonly [keyof Backlog, string, string])[] = [
  ['rows', 'outbox_rows', 'Rows that wait, up to 10000.'],
  ['oldestSeconds', 'outbox_oldest_seconds', 'Age of the oldest row that waits.'],
  ['failed', 'outbox_failed_rows', 'Rows that were set aside, up to 10000.'],
]

/** Has the registry tell what the relay did and how the outbox stands; where PostgreSQL is away it says nothing, and not 0. */
export function registerMetrics(registry: Registry, relay: OutboxRelay, pool: Pool): void {
  const registers = [registry]
  new Counter({
    name: 'outbox_relayed_rows_total',
    help: 'Rows by what became of them in this relay.',
    labelNames: ['result'],
    registers,
    collect() {
      this.reset()
      for (const result of RESULTS) this.inc({ result }, relay.counts[result])
    },
  })
  // All gauges of a scrape are collected at once, and share one reading.
  let reading: Promise<Backlog | undefined> | undefined
  const read = () => (reading ??= readBacklog(pool).then(told, () => told(undefined)))
  const told = (backlog: Backlog | undefined) => ((reading = undefined), backlog)
  for (const [field, name, help] of GAUGES) {
    new Gauge({
      name,
      help,
      registers,
      async collect() {
        const backlog = await read()
        this.remove()
        if (backlog !== undefined) this.set(backlog[field])
      },
    })
  }
}
