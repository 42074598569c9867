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
  completed: CompletedBatch,
): Promise<{ late: number; skippedLate: number; isWoken?: true }> {
  const { keys, args } = completedArguments(member, completed)
  const [late, skippedLate, woken] = asArray(await run(client, settleCompleted, keys, args))
  const told = { late: asNumber(late), skippedLate: asNumber(skippedLate) }
  return asNumber(woken) === 1 ? { ...told, isWoken: true } : told
}

/** Completions of one source. `resent`: an earlier try may have been executed. */
export interface CompletedBatch {
  readonly source: Source
  readonly done: readonly Completed[]
  readonly resent: boolean
}

/** As the scripts take them that settle completions. */
export function completedArguments(
  member: Member,
  { source, done, resent }: CompletedBatch,
): { keys: string[]; args: Argument[] } {
  const tallies = new Tallies(member)
  const buckets = new Map<string, Bucket>()
  let last: { name: string; bucket: Bucket } | undefined
  for (const one of done) {
    const { entryId, id, isSkipped = false, publishes } = one
    const slot = tallySlot(id)
    const { hour, minute } = slot
    const own = publishes === undefined ? ownOf(one) : { ...ownOf(one), publishes }
    const isPlain = own === undefined && !isSkipped
    const name = isPlain ? slot.name : `${slot.name} ${own !== undefined} ${isSkipped}`
    if (last?.name !== name) {
      const bucket = buckets.get(name) ?? {
        outcome: isSkipped ? 'skipped' : 'completed',
        tally: tallies.numberOf(hour),
        minute,
        ids: new IdList(),
        jobIds: undefined,
        owns: [],
      }
      buckets.set(name, bucket)
      last = { name, bucket }
    }
    const { bucket } = last
    if (id !== entryId) bucket.jobIds ??= bucket.ids.copy()
    bucket.ids.add(entryId)
    bucket.jobIds?.add(id)
    if (own !== undefined) bucket.owns.push(own)
  }
  const keys = [sourceKey(member, source), memberKeys.settings(member), memberKeys.index(member), ...tallies.keys]
  const args: Argument[] = [member.group, source === 0 ? 1 : 0, resent ? 1 : 0, TALLY_TTL_MS]
  for (const { outcome, tally, minute, ids, jobIds, owns } of buckets.values()) {
    args.push(outcome, tally, minute, ids.text, jobIds?.text ?? '', owns.length === 0 ? '' : JSON.stringify(owns))
  }
  return { keys, args }
}

/** A completion as it is settled, or a job that the group does not want. */
export interface Completed {
  readonly entryId: string
  readonly id: string
  /** What is rare; its uniqueness key, if it has one, the key by which it is in order, and who asked for its result. */
  readonly extra?:
    { readonly unique?: { readonly key: string }; readonly key?: string; readonly reply?: ReplyPlace } | undefined
  readonly isSkipped?: boolean
  /** What is said to whoever asked for its result. */
  readonly answer?: AnswerTold | undefined
  /** Whether it has notes, which end with it. */
  readonly hasNotes?: boolean
  /** Where what it publishes is among the arguments, how many that are, and which completion it is; see scripts/onward.ts. */
  readonly publishes?: readonly [from: number, count: number, at: number]
}

/** Where the end of a job is told, and what: see results/reply.ts and results/answer.ts. */
interface ReplyPlace {
  readonly to: string
  readonly ttlMs: number
}
interface AnswerTold {
  readonly state: string
  readonly body: string
}

/** What ends with a job beside its delivery. */
interface Own {
  /** Its uniqueness key. */
  readonly unique?: string
  /** The key whose turn it has. */
  readonly key?: string
  readonly reply?: AnswerTold & ReplyPlace
  readonly notes?: true
  readonly publishes?: Completed['publishes']
}

function ownOf({ extra, answer, hasNotes }: Completed): Own | undefined {
  if (extra === undefined && hasNotes !== true) return undefined
  const { unique, key } = extra ?? {}
  if (unique === undefined && key === undefined && answer === undefined && hasNotes !== true) return undefined
  const reply = answer && extra?.reply
  return {
    ...(unique !== undefined && { unique: unique.key }),
    ...(key !== undefined && { key }),
    ...(reply && { reply: { to: reply.to, ttlMs: reply.ttlMs, ...answer } }),
    ...(hasNotes === true && { notes: true }),
  }
}

/** Completed jobs of one minute, with those that have something of their own, or are skipped, apart. Their ids are those of their entries until one of them has another. */
interface Bucket {
  readonly outcome: 'completed' | 'skipped'
  readonly tally: number
  readonly minute: number
  readonly ids: IdList
  jobIds: IdList | undefined
  /** By their place in it; of none, or of all. */
  readonly owns: Own[]
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
      /** Others of its key go first. */
      readonly givesTurn?: boolean | undefined
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
  {
    source,
    outcomes,
    resent,
    onWoken,
  }: {
    source: Source
    outcomes: readonly FencedOutcome[]
    resent: boolean
    /** A job that waited for its turn is due now. */
    onWoken?: (() => void) | undefined
  },
): Promise<Fate[]> {
  const tallies = new Tallies(member)
  const args: Argument[] = [member.group, member.consumer, source === 0 ? 1 : 0, resent ? 1 : 0, TALLY_TTL_MS]
  for (const outcome of outcomes) {
    const { hour, minute } = tallySlot(outcome.id)
    const own = ownArguments(outcome)
    const counted = [tallies.numberOf(hour), minute]
    args.push(outcome.entryId, outcome.deliveries, ...counted, outcome.id, wordOf(outcome), own.length, ...own)
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
  const words = asArray(await run(client, settleFenced, keys, args)).map(asText)
  if (words.at(-1) === 'woken') {
    words.pop()
    onWoken?.()
  }
  return words as Fate[]
}

function wordOf(outcome: FencedOutcome): string {
  return outcome.kind === 'retry' && outcome.givesTurn === true ? 'retry-turned' : outcome.kind
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
