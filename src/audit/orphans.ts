import { boundsOf, scheduledRows, type AuditScope } from './gather.ts'
import { findIndexFaults, findLooseRecords, minuteOf, nameMissing } from '../redis/auditing.ts'
import type { IndexFault, IndexWalk, NamedJob } from '../redis/auditing.ts'
import { hasMadeId, isEntryId } from '../redis/entry-id.ts'
import type { Ask } from '../scan.ts'

/**
 * Jobs that can be told by id to be nowhere, or nowhere whole. Each is seen in one step with the place that it lacks, so
 * that a job on its way is never among them.
 */

export type OrphanKind =
  /** A retry with a record and no time: nothing will ever move it. */
  | 'retry-without-time'
  /** A retry with a time and no record: there is nothing to move. */
  | 'retry-without-record'
  /** The index says that it is scheduled, and it has neither. */
  | 'retry-missing'
  /** The index names a dead letter that is not there. */
  | 'letter-missing'
  /** The index names an entry of the redelivery stream that is neither to be delivered nor pending. */
  | 'redelivery-missing'
  /** It was delivered, and is nowhere, and has no outcome. */
  | 'outcome-missing'
  /** A delayed publish with a record and no time. */
  | 'delayed-without-time'
  | 'delayed-without-record'

export type Orphans = ReadonlyMap<OrphanKind, ReadonlySet<string>>

const INDEX_KINDS: Readonly<Record<IndexFault, OrphanKind>> = {
  time: 'retry-without-time',
  record: 'retry-without-record',
  both: 'retry-missing',
  letter: 'letter-missing',
  redelivery: 'redelivery-missing',
}

/** Whether a job is meant by id: also an older one than the first minute, where the range has no beginning of its own. */
function isMeant({ low, high, isOpen }: AuditScope, id: string): boolean {
  if (!isEntryId(id)) return false
  const minute = minuteOf(id)
  return minute <= high && (isOpen || minute >= low)
}

/** All that can be told without outcomes. Each id is of one kind. */
export async function findOrphans(
  ask: Ask,
  scope: AuditScope,
  signal: AbortSignal | undefined,
): Promise<{ orphans: Map<OrphanKind, Set<string>>; delayed: number }> {
  const orphans = new Map<OrphanKind, Set<string>>()
  const seen = new Set<string>()
  const note = (kind: OrphanKind, id: string) => {
    if (!isMeant(scope, id) || seen.has(id)) return
    seen.add(id)
    orphans.set(kind, (orphans.get(kind) ?? new Set()).add(id))
  }
  for (let walk: IndexWalk | undefined = { cursor: '0', left: [] }; walk !== undefined;) {
    signal?.throwIfAborted()
    const from: IndexWalk = walk
    const page = await ask((client) => findIndexFaults(client, scope, from))
    for (const { id, fault } of page.faults) note(INDEX_KINDS[fault], id)
    walk = page.next
  }
  let delayed = 0
  for (const group of [scope.group, null]) {
    const name = group === null ? 'delayed' : 'retry'
    for await (const { id, hasRecord } of scheduledRows(ask, scope.stream, { group, signal })) {
      if (!hasRecord) note(`${name}-without-record`, id)
      else if (group === null && isMeant(scope, id)) delayed += 1
    }
    for (let cursor: string | undefined = '0'; cursor !== undefined;) {
      signal?.throwIfAborted()
      const page = await ask((client) => findLooseRecords(client, scope.stream, { group, cursor: cursor ?? '0' }))
      for (const id of page.ids) note(`${name}-without-time`, id)
      cursor = page.cursor === '0' ? undefined : page.cursor
    }
  }
  return { orphans, delayed }
}

/**
 * The jobs of a minute that were delivered, are nowhere and have no outcome. Where outcomes are recorded, these are those that
 * are missing. More of them means that not all outcomes were: then nobody is named, and the answer is undefined.
 */
export async function nameOf(
  ask: Ask,
  scope: AuditScope,
  { minute, most, signal }: { minute: number; most: number; signal: AbortSignal | undefined },
): Promise<NamedJob[] | undefined> {
  const { from: first, to: last } = boundsOf({ low: minute, high: minute, isOpen: false })
  const named: NamedJob[] = []
  for (let from: string | undefined = first; from !== undefined;) {
    signal?.throwIfAborted()
    const to = scope.hasDelayed ? '+' : last
    const page = await ask((client) => nameMissing(client, scope, { from: from ?? first, to, minute }))
    named.push(...page.jobs)
    if (named.length > most) return undefined
    from = page.next
  }
  return named
}

/** The entry of a job in the stream, where its id tells. */
export function entryOf(id: string): string {
  return hasMadeId(id) ? '' : id
}
