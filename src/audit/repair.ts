import { entryOf, type Orphans } from './orphans.ts'
import { handBackDelayed, handBackOrphans, REPAIR_BATCH, type AuditPlace, type Repaired } from '../redis/auditing.ts'
import { isDelayedId } from '../redis/entry-id.ts'
import { searchEntry } from '../redis/whereabouts.ts'
import type { Ask } from '../scan.ts'

/** Handing back what is nowhere. */

export interface AuditRepair {
  /** Without: what would be handed back is told, and nothing was changed. */
  readonly isExecuted: boolean
  readonly handedBack: number
  /** The first 100 of them. */
  readonly ids: readonly string[]
  /** Those that cannot be handed back, the first 100, and why. */
  readonly refused: readonly { readonly id: string; readonly why: string }[]
  readonly refusedCount: number
}

const WHY: Readonly<Record<Exclude<Repaired, 'done'>, string>> = {
  elsewhere: 'it has come up elsewhere meanwhile',
  gone: 'neither its record nor its entry is left',
  wide: 'it has too many fields to be written again',
}

const TOLD = 100

/** Each batch is looked at again in the step that hands it back, so that it may be asked again after a lost answer. */
export async function repair(
  ask: Ask,
  place: AuditPlace,
  { orphans, entries, execute }: { orphans: Orphans; entries: ReadonlyMap<string, string>; execute: boolean },
): Promise<AuditRepair> {
  const done: string[] = []
  const refused: { id: string; why: string }[] = []
  const note = (id: string, state: Repaired) => {
    if (state === 'done') done.push(id)
    else refused.push({ id, why: WHY[state] })
  }
  for (const id of orphans.get('delayed-without-record') ?? []) note(id, 'gone')
  for (const batch of batches([...(orphans.get('delayed-without-time') ?? [])])) {
    const states = await ask((client) => handBackDelayed(client, place.stream, { ids: batch, execute }))
    for (const [at, id] of batch.entries()) note(id, states[at] ?? 'elsewhere')
  }
  for (const [kind, ids] of orphans) {
    if (kind === 'delayed-without-record' || kind === 'delayed-without-time') continue
    for (const batch of batches([...ids])) {
      let left = await Promise.all(
        batch.map(async (id) => {
          const entryId = entries.get(id) ?? (await entryIdOf(ask, place.stream, id))
          return { id, entryId, isNamed: kind === 'outcome-missing' }
        }),
      )
      while (left.length > 0) {
        const asked = left
        const states = await ask((client) => handBackOrphans(client, place, { jobs: asked, execute }))
        states.forEach((state, at) => note(asked[at]?.id ?? '', state))
        left = asked.slice(Math.max(1, states.length))
      }
    }
  }
  return {
    isExecuted: execute,
    handedBack: done.length,
    ids: done.slice(0, TOLD),
    refused: refused.slice(0, TOLD),
    refusedCount: refused.length,
  }
}

async function entryIdOf(ask: Ask, stream: string, id: string): Promise<string> {
  if (!isDelayedId(id)) return entryOf(id)
  return (await ask((client) => searchEntry(client, stream, id))).entryId
}

function batches(ids: readonly string[]): string[][] {
  const count = Math.ceil(ids.length / REPAIR_BATCH)
  return Array.from({ length: count }, (_, at) => ids.slice(at * REPAIR_BATCH, (at + 1) * REPAIR_BATCH))
}
