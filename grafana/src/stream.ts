import type { DashboardSpec } from './build/spec.ts'
import { backlog, outcomes } from './stream/backlog.ts'
import { kept } from './stream/kept.ts'
import { times } from './stream/times.ts'
import { later, taken } from './stream/waiting.ts'

/** What one asks once it is known which stream and group it is. */
export const stream: DashboardSpec = {
  key: 'stream',
  title: 'millrace / Stream and group',
  description: 'One stream and its groups: what there is to do, what becomes of it, how long it takes, what waits.',
  rows: [backlog, outcomes, times, taken, later, kept],
}
