import { idle } from './idle.ts'
import { latencies } from './latencies.ts'
import { lifecycleGroups } from './lifecycle.ts'
import type { Group } from './measure.ts'
import { memory } from './memory.ts'
import { persistence } from './persistence.ts'
import { backlog, processing, slots } from './processing.ts'
import { publishing } from './publishing.ts'
import type { Scale } from './scale.ts'

/** Everything that is measured without being asked for, in its order. */
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

/** What one run measures: the named ones of all there are, else the lifecycle if it is asked for, else the rest. */
export function chosenGroups(
  scale: Scale,
  { only, lifecycle }: { only: readonly string[]; lifecycle: boolean },
): Group[] {
  const [plain, ofLifecycle] = [allGroups(scale), lifecycleGroups(scale)]
  if (only.length === 0) return lifecycle ? ofLifecycle : plain
  return [...plain, ...ofLifecycle].filter(({ name }) => only.includes(name))
}

/** The names of all groups. */
export function groupNames(scale: Scale): { plain: string[]; lifecycle: string[] } {
  const namesOf = (groups: readonly Group[]) => groups.map(({ name }) => name)
  return { plain: namesOf(allGroups(scale)), lifecycle: namesOf(lifecycleGroups(scale)) }
}
