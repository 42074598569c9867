import type { DashboardSpec } from './build/spec.ts'
import { limits } from './workers/limits.ts'
import { connections, processes } from './workers/processes.ts'
import { publishing } from './workers/publishing.ts'
import { reading } from './workers/reading.ts'
import { slots } from './workers/slots.ts'

/** What workers and producers count of themselves. */
export const workers: DashboardSpec = {
  key: 'workers',
  title: 'millrace / Workers',
  description: 'Workers and producers: whether they are busy, get jobs and settle them, and reach Redis.',
  rows: [slots, limits, reading, processes, connections, publishing],
}
