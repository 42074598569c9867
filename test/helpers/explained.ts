import { expect } from 'vitest'
import type { Explanation, GroupState, Inspector } from '../../src/index.ts'
import { GROUPS, STREAM, type JobModel, type Place } from './job-model.ts'

/** Explains every job of the model, and compares where each group has it with what the model says. */
export async function expectExplained(inspector: Inspector, model: JobModel): Promise<void> {
  // Nothing else happens meanwhile: all are asked at once, for each round trip would cost more than its answer.
  const explanations = await Promise.all(model.jobs.map(({ id }) => inspector.explain(STREAM, id)))
  for (const [at, { id, lives, entryId, due, copyIn }] of model.jobs.entries()) {
    const explanation = explanations[at] as Explanation
    // Whether a copy ever was another group's cannot be told from what that group has counted.
    const meant = GROUPS.filter((group) => copyIn === undefined || copyIn === group)
    const told = explanation.groups
      .filter(({ group }) => meant.some((one) => one === group))
      .map(({ group, state }) => [group, stateOf(state)])
    // A delayed publish that is cancelled before it is due leaves nothing behind.
    const isKnown = entryId !== undefined || due !== undefined || copyIn !== undefined
    const expected = meant.map((group) => [group, isKnown ? expectedOf(lives[group].place) : 'unknown'])
    expect([id, explanation.isKnown, told]).toEqual([id, isKnown, expected])
    expectSound(explanation)
  }
}

/** Each sentence is one, and nothing that is missing has come into it. */
export function expectSound({ sentences, groups }: Explanation): void {
  for (const one of [sentences, ...groups.map((group) => group.sentences)]) {
    expect(one.length).toBeGreaterThan(0)
    const odd = one.filter(({ text }) => !/^\S.*[.:]$/.test(text) || /undefined|NaN|null|Infinity|\[object/.test(text))
    expect(odd).toEqual([])
  }
}

function stateOf(state: GroupState): string {
  switch (state.at) {
    case 'not-delivered':
      return `not delivered on ${state.source}: ${state.entryId}`
    case 'pending':
      return `pending on ${state.source}: ${state.entryId} at ${state.worker?.name ?? ':handback'}, ${state.deliveries}`
    case 'scheduled':
      return `scheduled ${state.dueMs}`
    case 'dead':
      return `dead ${state.letter.deadId}`
    case 'before-group':
    case 'delayed':
    case 'nowhere':
    case 'settled':
    case 'trimmed':
    case 'unknown':
      return state.at
  }
}

function expectedOf(place: Place): string {
  switch (place.at) {
    case 'waiting':
      return `not delivered on ${sourceOf(place.source)}: ${place.entryId}`
    case 'pending':
      return `pending on ${sourceOf(place.source)}: ${place.entryId} at ${place.owner}, ${place.deliveries}`
    case 'scheduled':
      return `scheduled ${Number(place.due)}`
    case 'dead':
      return `dead ${place.deadId}`
    case 'delayed':
    case 'settled':
      return place.at
  }
}

function sourceOf(source: 0 | 1): string {
  return source === 0 ? 'stream' : 'redelivery'
}
