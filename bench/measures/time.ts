import { batches } from './batches.ts'
import { chainGroup } from './chain.ts'
import type { Group } from './measure.ts'
import { ordered } from './ordered.ts'
import { results } from './results.ts'
import type { Scale } from './scale.ts'
import { schedules } from './schedules.ts'

/** Recurring schedules, results, batches, chains and order by key: `npm run bench -- --time`. */
export function timeGroups(scale: Scale): Group[] {
  return [results(scale), schedules(scale), batches(scale), ordered(scale), chainGroup(scale)]
}
