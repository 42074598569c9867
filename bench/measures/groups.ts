import { idle } from './idle.ts'
import { latencies } from './latencies.ts'
import type { Group } from './measure.ts'
import { memory } from './memory.ts'
import { persistence } from './persistence.ts'
import { backlog, processing, slots } from './processing.ts'
import { publishing } from './publishing.ts'
import type { Scale } from './scale.ts'

/** Everything that is measured, in its order. */
export function allGroups(scale: Scale): Group[] {
  return [
    ...publishing(scale),
    processing(scale),
    latencies(scale),
    memory(scale),
    slots(scale),
    backlog(scale),
    persistence(scale),
    idle(scale),
  ]
}
