import type { Redis } from 'ioredis'
import { IdList, tallySlot } from './entry-id.ts'
import { memberKeys, sourceKey, type Member, type Source } from './member.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { settleCompleted, settleGone } from './scripts/delivery.ts'
import { settleFenced } from './scripts/outcomes.ts'
import { run, type Argument } from './scripts/script.ts'
import { TALLY_TTL_MS, Tallies } from './tally.ts'

/** How deliveries end: what a worker tells Redis of the runs that are over. */

/** Acks what was completed or skipped, in buckets of the same minute, and tells how many were late. At most 500 a call. */
export async function settle(
  client: Redis,
  member: Member,
  { source, done, resent }: { source: Source; done: readonly Completed[]; resent: boolean },
): Promise<{ late: number; skippedLate: number }> {
  const tallies = new Tallies(member)
  const buckets = new Map<string, Bucket>()
  let last: { name: string; bucket: Bucket } | undefined
  for (const { entryId, id, extra, isSkipped = false } of done) {
    const slot = tallySlot(id)
    const { hour, minute } = slot
    const isPlain = extra?.unique === undefined && !isSkipped
    const name = isPlain ? slot.name : `${slot.name} ${extra?.unique !== undefined} ${isSkipped}`
    if (last?.name !== name) {
      const bucket = buckets.get(name) ?? {
        outcome: isSkipped ? 'skipped' : 'completed',
        tally: tallies.numberOf(hour),
        minute,
        ids: new IdList(),
        jobIds: undefined,
        uniqueKeys: [],
      }
      buckets.set(name, bucket)
      last = { name, bucket }
    }
    const { bucket } = last
    if (id !== entryId) bucket.jobIds ??= bucket.ids.copy()
    bucket.ids.add(entryId)
    bucket.jobIds?.add(id)
    if (extra?.unique !== undefined) bucket.uniqueKeys.push(extra.unique.key)
  }
  const keys = [sourceKey(member, source), memberKeys.settings(member), memberKeys.index(member), ...tallies.keys]
  const args: Argument[] = [member.group, source === 0 ? 1 : 0, resent ? 1 : 0, TALLY_TTL_MS]
  for (const { outcome, tally, minute, ids, jobIds, uniqueKeys } of buckets.values()) {
    const unique = uniqueKeys.length === 0 ? '' : JSON.stringify(uniqueKeys)
    args.push(outcome, tally, minute, ids.text, jobIds?.text ?? '', unique)
  }
  const [late, skippedLate] = asArray(await run(client, settleCompleted, keys, args))
  return { late: asNumber(late), skippedLate: asNumber(skippedLate) }
}

/** A completion as it is settled, or a job that the group does not want. */
interface Completed {
  readonly entryId: string
  readonly id: string
  /** What is rare; its uniqueness key, if it has one. */
  readonly extra?: { readonly unique?: { readonly key: string } } | undefined
  readonly isSkipped?: boolean
}

/** Completed jobs of one minute, with those that are unique or skipped apart. Their ids are those of their entries until one of them has another. */
interface Bucket {
  readonly outcome: 'completed' | 'skipped'
  readonly tally: number
  readonly minute: number
  readonly ids: IdList
  jobIds: IdList | undefined
  /** By their place in it; of none, or of all. */
  readonly uniqueKeys: string[]
}

/**
 * Counts entries that were deleted while they were pending. Who they were is not known any more, so that they are counted by
 * the id of the entry. `isAcked`: they are out of the pending list already. Returns how many were counted.
 */
export async function settleAsGone(
  client: Redis,
  member: Member,
  { source, ids, isAcked }: { source: Source; ids: readonly string[]; isAcked: boolean },
): Promise<number> {
  const tallies = new Tallies(member)
  const args: Argument[] = [member.group, TALLY_TTL_MS, isAcked ? 1 : 0]
  for (const id of ids) {
    const { hour, minute } = tallySlot(id)
    args.push(id, tallies.numberOf(hour), minute)
  }
  const keys = [sourceKey(member, source), memberKeys.settings(member), ...tallies.keys]
  return asNumber(await run(client, settleGone, keys, args))
}

/** An outcome that is no completion. `provenance` holds `dead-*` names and values in their fixed order. */
export type FencedOutcome = { readonly entryId: string; readonly id: string; readonly deliveries: number } & (
  | {
      readonly kind: 'retry'
      readonly delayMs: number
      readonly attempt: number
      readonly firstFailedMs: number | undefined
      readonly error: string
      /** The failed run as a `traceparent`, if it was traced. */
      readonly trace?: string | undefined
    }
  | {
      readonly kind: 'wait'
      readonly delayMs: number
      readonly why: string
      /** Names and values that replace those of the entry. */
      readonly fields: readonly string[]
    }
  | { readonly kind: 'dead'; readonly provenance: readonly string[] }
  | { readonly kind: 'cancelled' }
)

/** What became of it; see the script. */
export type Fate = 'retried' | 'waits' | 'dead' | 'cancelled' | 'gone' | 'stale' | 'done' | 'twin' | 'wide'

/** Writes outcomes of one source, at most 100 a call. The answer may be shorter than what was given. */
export async function settleOthers(
  client: Redis,
  member: Member,
  { source, outcomes, resent }: { source: Source; outcomes: readonly FencedOutcome[]; resent: boolean },
): Promise<Fate[]> {
  const tallies = new Tallies(member)
  const args: Argument[] = [member.group, member.consumer, source === 0 ? 1 : 0, resent ? 1 : 0, TALLY_TTL_MS]
  for (const outcome of outcomes) {
    const { hour, minute } = tallySlot(outcome.id)
    const own = ownArguments(outcome)
    const counted = [tallies.numberOf(hour), minute]
    args.push(outcome.entryId, outcome.deliveries, ...counted, outcome.id, outcome.kind, own.length, ...own)
  }
  const keys = [
    sourceKey(member, source),
    memberKeys.dead(member),
    memberKeys.index(member),
    memberKeys.retries(member),
    memberKeys.retryJobs(member),
    memberKeys.cancelled(member),
    memberKeys.settings(member),
    ...tallies.keys,
  ]
  return asArray(await run(client, settleFenced, keys, args)).map((word) => asText(word) as Fate)
}

function ownArguments(outcome: FencedOutcome): readonly Argument[] {
  switch (outcome.kind) {
    case 'retry':
      return [outcome.delayMs, outcome.attempt, outcome.firstFailedMs ?? '', outcome.error, ...traceOf(outcome)]
    case 'wait':
      return [outcome.delayMs, outcome.why, ...outcome.fields]
    case 'dead':
      return outcome.provenance
    case 'cancelled':
      return []
  }
}

function traceOf({ trace }: { readonly trace?: string | undefined }): readonly string[] {
  return trace === undefined ? [] : [trace]
}
