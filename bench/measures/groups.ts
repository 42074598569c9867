import { idle } from './idle.ts'
import { latencies } from './latencies.ts'
import { lifecycleGroups } from './lifecycle.ts'
import type { Group } from './measure.ts'
import { memory } from './memory.ts'
import { persistence } from './persistence.ts'
import { backlog, processing, slots } from './processing.ts'
import { publishing } from './publishing.ts'
import { recoveryGroups } from './recovery.ts'
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

/** What one run measures: the named ones of all there are, else the lifecycle or recovery if asked for, else the rest. */
export function chosenGroups(
  scale: Scale,
  { only, lifecycle, recovery }: { only: readonly string[]; lifecycle: boolean; recovery: boolean },
): Group[] {
  const [plain, ofLifecycle, ofRecovery] = [allGroups(scale), lifecycleGroups(scale), recoveryGroups(scale)]
  if (only.length === 0) {
    if (lifecycle || recovery) return [...(lifecycle ? ofLifecycle : []), ...(recovery ? ofRecovery : [])]
    return plain
  }
  return [...plain, ...ofLifecycle, ...ofRecovery].filter(({ name }) => only.includes(name))
}

/** The names of all groups. */
export function groupNames(scale: Scale): { plain: string[]; lifecycle: string[]; recovery: string[] } {
  const namesOf = (groups: readonly Group[]) => groups.map(({ name }) => name)
  return {
    plain: namesOf(allGroups(scale)),
    lifecycle: namesOf(lifecycleGroups(scale)),
    recovery: namesOf(recoveryGroups(scale)),
  }
}
