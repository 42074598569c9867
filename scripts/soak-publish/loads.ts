import type { BufferOptions, BufferPriority } from '../../src/index.ts'
import type { Ledger } from '../../test/helpers/publish-ledger.ts'
import { Load, type LoadOptions } from '../../test/helpers/publish-load.ts'

/** Producers that differ in what they promise and in how much they may keep. */
export function openLoads(ledger: Ledger, redis: string): Load[] {
  const load = (name: string, timeoutMs: number, { producer, ...more }: Partial<LoadOptions> = {}) =>
    new Load({ name, ledger, timeoutMs, padding: 'x'.repeat(80), ...more, producer: { redis, ...producer } })
  const priorityOf = (number: number) => (number % 10) as BufferPriority
  const buffered = (buffer: BufferOptions) => ({ durability: 'buffered', buffer }) as const
  return [
    load('patient', 30_000),
    load('hasty', 150),
    load('of a small buffer', 3000, { producer: { buffer: { maxJobs: 300 } } }),
    // Batches that are cut by their bytes, and take long to be sent.
    load('heavy', 8000, { atOnce: 1, everyMs: 20, padding: 'x'.repeat(40_000) }),
    load('waiting for room', 5000, { producer: { buffer: { maxJobs: 200, whenFull: 'wait' } } }),
    load('buffering', 20_000, { producer: buffered({ maxAgeMs: 20_000 }) }),
    load('buffering briefly', 400, { producer: buffered({ maxAgeMs: 400, maxJobs: 1000 }) }),
    load('buffering, waiting for room', 5000, {
      producer: buffered({ maxAgeMs: 5000, maxJobs: 300, whenFull: 'wait' }),
    }),
    load('shedding', 5000, { priorityOf, producer: { buffer: { maxAgeMs: 5000, maxJobs: 300, whenFull: 'shed' } } }),
    load('shedding what it buffers', 5000, {
      priorityOf,
      producer: buffered({ maxAgeMs: 5000, maxJobs: 300, whenFull: 'shed' }),
    }),
    load('with a replica', 8000, { producer: { durability: { replicas: 1, timeoutMs: 300 } } }),
  ]
}
