import type { DashboardSpec } from './build/spec.ts'
import { budgets } from './overview/budgets.ts'
import { flow } from './overview/flow.ts'
import { groups, lateness } from './overview/groups.ts'
import { obstacles } from './overview/obstacles.ts'
import { redis } from './overview/redis.ts'

/** The home page. */
export const overview: DashboardSpec = {
  key: 'overview',
  title: 'millrace / Overview',
  description: 'Whether work flows, how late it is, what is in the way, and where to look then.',
  rows: [flow, obstacles, groups, lateness, budgets, redis],
}
