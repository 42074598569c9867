import type { Redis } from 'ioredis'
import { KEEP_CANCELLED_MS, MOST_CANCELLED } from './cancelling.ts'
import { producerKey, scheduledJobsKey, scheduledKey, settingsKey, tokenKey, uniqueKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { openProducer, publishBatch, publishChecked, takeOverProducer } from './scripts/publish.ts'
import { run, type Argument } from './scripts/script.ts'
import { publishUnique } from './scripts/unique.ts'

/** How long Redis remembers a producer's last batch after it: far longer than anybody waits for a publish. */
const PRODUCER_TTL_MS = 3_600_000

/** The same for a sequence that is kept on disk, which somebody may take over after a weekend. */
const KEPT_TTL_MS = 14 * 24 * 3_600_000

/** Makes the key of a new producer; false if another producer has that id. */
export async function open(client: Redis, stream: string, producerId: string): Promise<boolean> {
  return asNumber(await run(client, openProducer, [producerKey(stream, producerId)], [PRODUCER_TTL_MS])) === 1
}

/** A sequence as it was taken over: its next batch is `seq` + 1, and goes on behind `mark`, which is empty at the beginning. */
export interface TakenOver {
  readonly seq: number
  readonly mark: string
}

/**
 * Takes over a sequence that is kept on disk; from here on batches of its owner before are stale. `isNew`: nobody was ever
 * told that it is there, so a missing key is made. Undefined where Redis no longer knows it.
 */
export async function takeOver(
  client: Redis,
  stream: string,
  { producerId, isNew }: { producerId: string; isNew: boolean },
): Promise<TakenOver | undefined> {
  const keys = [producerKey(stream, producerId)]
  const [seq, mark] = asArray(await run(client, takeOverProducer, keys, [KEPT_TTL_MS, isNew ? 1 : 0]))
  return asText(seq) === 'forgotten' ? undefined : { seq: asNumber(seq), mark: asText(mark) }
}

/** Nobody will take this sequence over any more: Redis forgets it as it does that of a producer. */
export async function forgetSoon(client: Redis, stream: string, producerId: string): Promise<void> {
  await client.pexpire(producerKey(stream, producerId), PRODUCER_TTL_MS)
}

/** How long WAIT is asked to wait at most in one command; a whole wait may be several. */
const WAIT_STEP_MS = 1000

/**
 * How many replicas have what this connection wrote last, as soon as `replicas` have it or `timeoutMs` is over. Before, the
 * producer's key is written once more: WAIT asks about writes of its own connection only, and says "all" on one that has
 * written nothing, as it is after a reconnect.
 */
export async function waitForReplicas(
  client: Redis,
  key: { stream: string; producerId: string },
  { replicas, timeoutMs }: { replicas: number; timeoutMs: number },
): Promise<number> {
  const written = client.pexpire(producerKey(key.stream, key.producerId), PRODUCER_TTL_MS)
  const told = client.wait(replicas, Math.max(1, Math.min(timeoutMs, WAIT_STEP_MS)))
  const [, count] = await Promise.all([written, told])
  return asNumber(count)
}

/** A job as a batch carries it. */
export interface Item {
  /** Its field names and values in order. */
  readonly fields: readonly string[]
  /** When it is due if it is not for now, by the server's clock: ms since the epoch, or `+` and the ms from when Redis has it. */
  readonly due?: string | undefined
  /** Its idempotency token: another item with the same one within `tokenMs` is not appended. */
  readonly token?: { readonly text: string; readonly ttlMs: number } | undefined
  /** What must be free for it to be appended, and what becomes of it if that is not. */
  readonly unique?: UniqueItem | undefined
}

/** The uniqueness key of an item. Its fields name the key, too: the worker knows it by them. */
export interface UniqueItem {
  readonly key: string
  /** How long its job holds it; `ttl` is for `ttlMs`, whatever becomes of the job. */
  readonly until: 'settled' | 'started' | 'ttl'
  /** 0 where that is no matter of time. */
  readonly ttlMs: number
  /** The group that settles or starts it; empty for the only one of the stream. */
  readonly group: string
  readonly mode: 'reject' | 'replace' | 'debounce'
  /** How long after the first of them a job that is put off again and again is due; 0 for no bound. */
  readonly maxWaitMs: number
}

export type Appended =
  /**
   * What became of each item; see `isRefused`, and `fateOf` for the others. `bound`: what the stream's maxBacklog is, null if it
   * has none, undefined if not asked.
   */
  | { readonly kind: 'done'; readonly ids: readonly (string | undefined)[]; readonly bound: number | null | undefined }
  | { readonly kind: 'stale' | 'forgotten' }
  | { readonly kind: 'behind'; readonly stored: number }
  /** The stream's maxBacklog: nothing was appended. */
  | { readonly kind: 'full'; readonly backlog: number; readonly bound: number }

/** Whether the answer of an item is that it is not in Redis, though its batch is: undefined, or a word behind a `!`. */
export function isRefused(answer: string | undefined): answer is undefined | `!${string}` {
  return answer === undefined || answer.startsWith('!')
}

/** What became of an item. */
export interface ItemFate {
  /** The id of its job, or of the job that is there in its place. */
  readonly id: string
  readonly outcome: 'added' | 'scheduled' | 'duplicate' | 'replaced'
  /** The job that gave way to it. */
  readonly replacedId?: string
}

/** Reads an item's answer; see the scripts. */
export function fateOf(answer: string): ItemFate {
  if (answer.startsWith('@')) return { id: answer.slice(1), outcome: 'scheduled' }
  if (answer.startsWith('=')) return { id: answer.replace(/^=@?/, ''), outcome: 'duplicate' }
  if (!answer.startsWith('~')) return { id: answer, outcome: 'added' }
  const [id = '', replacedId] = answer.replace(/^~@?/, '').split('/')
  return { id, outcome: 'replaced', ...(replacedId !== undefined && { replacedId }) }
}

/** A batch as it is sent. */
export interface SentBatch {
  readonly producerId: string
  readonly seq: number
  readonly items: readonly Item[]
  /** Redis was told not long ago to remember the producer, and need not be told again. @default false */
  readonly isRemembered?: boolean
  /**
   * Whether the stream's maxBacklog is to be looked at. Not for a batch that may have been executed: one that is refused then
   * could not be made smaller, for a late copy of it may still be appended. @default false
   */
  readonly isChecked?: boolean
  /** The place behind it, of a sequence that is kept on disk. */
  readonly mark?: string
}

/** Appends a batch, once, however often it is sent. */
export async function append(client: Redis, stream: string, batch: SentBatch): Promise<Appended> {
  const ttlMs = batch.isRemembered === true ? 0 : batch.mark === undefined ? PRODUCER_TTL_MS : KEPT_TTL_MS
  const isChecked = batch.isChecked === true
  let [isMore, isUnique] = [isChecked || batch.mark !== undefined, false]
  for (const { token, unique } of batch.items) {
    if (token !== undefined) isMore = true
    if (unique !== undefined) isMore = isUnique = true
  }
  const keys = [stream, producerKey(stream, batch.producerId)]
  const args: Argument[] = [batch.seq, ttlMs, batch.items.length]
  if (isMore) args.push(batch.mark ?? '', 0, isChecked ? 1 : 0)
  if (isUnique) args.push(MOST_CANCELLED, KEEP_CANCELLED_MS)
  const named: string[] = []
  const later = pushItems(args, batch.items, { stream, named })
  if (isMore) args[4] = later
  if (isMore || later > 0) keys.push(scheduledKey(stream), scheduledJobsKey(stream), settingsKey(stream))
  const script = isUnique ? publishUnique : isMore ? publishChecked : publishBatch
  return appendedOf(await run(client, script, [...keys, ...named], args))
}

function appendedOf(reply: unknown): Appended {
  if (typeof reply === 'string') return { kind: 'done', ids: idsOf(reply), bound: undefined }
  const [kind, first, second] = asArray(reply)
  switch (asText(kind)) {
    case 'done': {
      const bound = asText(second)
      return { kind: 'done', ids: idsOf(asText(first)), bound: bound === '' ? null : asNumber(bound) }
    }
    case 'behind':
      return { kind: 'behind', stored: asNumber(first) }
    case 'full':
      return { kind: 'full', backlog: asNumber(first), bound: asNumber(second) }
    case 'stale':
      return { kind: 'stale' }
    default:
      return { kind: 'forgotten' }
  }
}

function idsOf(text: string): (string | undefined)[] {
  return text.split(' ').map((id) => (id === '!' ? undefined : id))
}

/** As the script calls them. */
const SCOPE = { settled: 's', started: 't', ttl: 'l' } as const
const MODE = { reject: 'r', replace: 'p', debounce: 'd' } as const

/** What jobs of one run share beside their name; of those that are unique, how. */
interface Run {
  readonly name: string
  readonly how: UniqueItem | undefined
  /** Where its count is, which goes down from 0 for jobs that are not unique. */
  readonly countAt: number
}

/**
 * Jobs of one name that follow each other and have the common shape are a run; see the scripts. Gives how many are for later.
 */
function pushItems(
  args: Argument[],
  items: readonly Item[],
  { stream, named }: { stream: string; named: string[] },
): number {
  let run: Run | undefined
  let later = 0
  for (const item of items) {
    const { fields, due, token, unique } = item
    const [, name = '', , payload = ''] = fields
    if (due !== undefined || token !== undefined || !isCommon(fields, unique)) {
      run = undefined
      if (due !== undefined) later += 1
      pushItem(args, item, { stream, named })
      continue
    }
    if (run?.name !== name || !isAlike(run.how, unique))
      run = beginRun(args, { name, how: unique, keyAt: named.length + 1 })
    if (unique !== undefined) named.push(uniqueKey(stream, unique.key))
    args[run.countAt] = (args[run.countAt] as number) + (unique === undefined ? -1 : 1)
    args.push(payload)
  }
  return later
}

function beginRun(
  args: Argument[],
  { name, how, keyAt }: { name: string; how: UniqueItem | undefined; keyAt: number },
): Run {
  const countAt = how === undefined ? args.length : args.length + 1
  if (how === undefined) args.push(0, name)
  else args.push('U', 0, keyAt, SCOPE[how.until], how.group, MODE[how.mode], how.ttlMs, name)
  return { name, how, countAt }
}

/** Whether nothing but its payload, and its key if it is unique, tells it from others of its name. */
function isCommon(fields: readonly string[], unique: UniqueItem | undefined): boolean {
  if (fields[0] !== 'job' || fields[2] !== 'data') return false
  if (unique === undefined) return fields.length === 4
  if (fields[4] !== 'unique' || fields[5] !== unique.key) return false
  if (unique.until === 'settled') return fields.length === 6
  return fields.length === 8 && fields[6] === 'unique-until' && fields[7] === unique.until
}

function isAlike(one: UniqueItem | undefined, other: UniqueItem | undefined): boolean {
  if (one === undefined || other === undefined) return one === other
  if (one.until !== other.until || one.mode !== other.mode) return false
  return one.group === other.group && one.ttlMs === other.ttlMs
}

function pushItem(
  args: Argument[],
  { fields, due, token, unique }: Item,
  { stream, named }: { stream: string; named: string[] },
): void {
  if (token !== undefined) args.push('t', named.push(tokenKey(stream, token.text)), token.ttlMs)
  if (unique !== undefined) {
    const { until, group, mode, ttlMs, maxWaitMs } = unique
    const at = named.push(uniqueKey(stream, unique.key))
    args.push('u', at, SCOPE[until], group, MODE[mode], ttlMs, maxWaitMs)
  }
  if (due !== undefined) args.push(0, due)
  args.push(fields.length, ...fields)
}
