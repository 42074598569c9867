import { controlGroups } from './control.ts'
import { idle } from './idle.ts'
import { latencies } from './latencies.ts'
import { lifecycleGroups } from './lifecycle.ts'
import type { Group } from './measure.ts'
import { memory } from './memory.ts'
import { persistence } from './persistence.ts'
import { observedGroups } from './observed.ts'
import { outageGroups } from './outage.ts'
import { backlog, processing, slots } from './processing.ts'
import { publishing } from './publishing.ts'
import { recoveryGroups } from './recovery.ts'
import type { Scale } from './scale.ts'
import { timeGroups } from './time.ts'

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

/** What is measured only where it is asked for. */
export const SPECIAL_KINDS = ['lifecycle', 'recovery', 'observed', 'outage', 'control', 'time'] as const
export type SpecialKind = (typeof SPECIAL_KINDS)[number]

const SPECIAL: Readonly<Record<SpecialKind, (scale: Scale) => Group[]>> = {
  lifecycle: lifecycleGroups,
  recovery: recoveryGroups,
  observed: observedGroups,
  outage: outageGroups,
  control: controlGroups,
  time: timeGroups,
}

/** What one run measures: the named ones of all there are, else the kinds that are asked for, else the rest. */
export function chosenGroups(
  scale: Scale,
  { only, kinds }: { only: readonly string[]; kinds: readonly SpecialKind[] },
): Group[] {
  const specialOf = (chosen: readonly SpecialKind[]) => chosen.flatMap((kind) => SPECIAL[kind](scale))
  if (only.length === 0) return kinds.length > 0 ? specialOf(kinds) : allGroups(scale)
  return [...allGroups(scale), ...specialOf(SPECIAL_KINDS)].filter(({ name }) => only.includes(name))
}

/** The names of all groups. */
export function groupNames(scale: Scale): Readonly<Record<'plain' | SpecialKind, string[]>> {
  const namesOf = (groups: readonly Group[]) => groups.map(({ name }) => name)
  return {
    plain: namesOf(allGroups(scale)),
    lifecycle: namesOf(lifecycleGroups(scale)),
    recovery: namesOf(recoveryGroups(scale)),
    observed: namesOf(observedGroups(scale)),
    outage: namesOf(outageGroups(scale)),
    control: namesOf(controlGroups(scale)),
    time: namesOf(timeGroups(scale)),
  }
}
