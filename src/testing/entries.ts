import { tickOf } from '../cron/tick.ts'
import { OptionError } from '../errors.ts'
import { resolveLogger } from '../logger.ts'
import { bookOf } from '../metrics/book.ts'
import { shown } from '../options.ts'
import { checkBuffer } from '../producer-options.ts'
import { pack } from '../publish/packing.ts'
import { Router } from '../publish/router.ts'
import type { Source } from '../redis/member.ts'
import { originalOf } from '../wire.ts'
import type { Asked, TestedJob } from './asked.ts'

/** The entries that carry a job, as a publish, a retry and a wait write them. */
export interface Entry {
  readonly source: Source
  readonly entryId: string
  readonly deliveries: number
  /** Flat names and values. */
  readonly fields: readonly string[]
}

const MOST_BYTES = 1024 * 1024
/** The first sequence that a script gives to what is published for later. */
const DELAYED_SEQ = '1000000000000001'

/**
 * What a publish writes: checked and packed by the producer's own code. A job for later lets the clock go on until it is due.
 * @throws PublishError, as a publish does.
 */
export function publishedEntry({ job: asked, stream, clock, attempt, deliveries }: Asked): Entry {
  const { job, data, version, id: given, headers, delayMs, runAt, expiresAt, ttlMs, uniqueKey, unique, key } = asked
  const book = bookOf(undefined)
  const router = new Router({
    ...{ timeoutMs: 10_000, durability: 'redis', buffer: checkBuffer(), nowMs: () => clock.nowMs },
    batcherOf: (name) => ({ numbers: book.producer(name, resolveLogger(false)) }),
  })
  const named = version === undefined ? job : { name: typeof job === 'string' ? job : job.name, stream, version }
  const options = { stream, headers, delayMs, runAt, expiresAt, ttlMs, uniqueKey, unique, key }
  const route = router.route(named, present(options))
  const { fields, due } = pack(route, data, MOST_BYTES)
  const publishedMs = clock.nowMs
  const dueMs = due === undefined ? publishedMs : due.startsWith('+') ? publishedMs + Number(due) : Number(due)
  clock.advanceTo(dueMs)
  const isLater = dueMs > publishedMs
  const id = given ?? (isLater ? `${publishedMs}-${DELAYED_SEQ}` : `${publishedMs}-0`)
  const entryId = isLater || attempt > 1 ? `${clock.nowMs}-0` : id
  const own = [
    ...(id === entryId ? [] : ['id', id]),
    ...originFields(asked),
    ...(attempt > 1 ? ['attempt', String(attempt - 1), 'first-failed', String(publishedMs)] : []),
    ...(isLater ? ['at', String(dueMs)] : []),
  ]
  return { source: attempt > 1 ? 1 : 0, entryId, deliveries, fields: [...fields, ...own] }
}

/** What else has published it, as the scripts write it that do. @throws OptionError */
function originFields({ cron, replayOf }: Pick<TestedJob, 'cron' | 'replayOf'>): string[] {
  const tick = cron && `${cron.name} ${cron.tickMs ?? 'run'}`
  if (cron !== undefined && (typeof cron.name !== 'string' || tickOf(tick) === undefined)) {
    throw new OptionError(`expected \`cron\` to be the tick of a schedule, { name, tickMs }, got ${shown(cron)}`)
  }
  const original = replayOf && `${replayOf.stream} ${replayOf.id}`
  if (replayOf !== undefined && (replayOf.stream === undefined || originalOf(original) === undefined)) {
    throw new OptionError(`expected \`replayOf\` to be { stream, id }, got ${shown(replayOf)}`)
  }
  return [...(tick === undefined ? [] : ['cron', tick]), ...(original === undefined ? [] : ['replay-of', original])]
}

/** A failed attempt, and how long the next one is put off. */
export interface Failed {
  readonly id: string
  readonly attempt: number
  readonly firstFailedMs: number
}

const RETRIED = ['id', 'attempt', 'first-failed', 'at', 'trace-last', 'waited-since']

/** The next attempt, now that it is due. The script that schedules retries does the same inside Redis. */
export function retriedEntry({ fields }: Entry, { id, attempt, firstFailedMs }: Failed, dueMs: number): Entry {
  const own = ['id', id, 'attempt', String(attempt), 'first-failed', String(firstFailedMs)]
  return redelivered([...without(fields, RETRIED), ...own], dueMs)
}

/** The same job once more, after it has waited at no cost. */
export function waitedEntry({ fields }: Entry, id: string, renewed: readonly string[], dueMs: number): Entry {
  const names = ['id', 'at', 'waited-since', ...renewed.filter((_, at) => at % 2 === 0)]
  return redelivered([...without(fields, names), 'id', id, ...renewed], dueMs)
}

function redelivered(fields: readonly string[], dueMs: number): Entry {
  return { source: 1, entryId: `${dueMs}-0`, deliveries: 1, fields: [...fields, 'at', String(dueMs)] }
}

function without(fields: readonly string[], names: readonly string[]): string[] {
  return fields.filter((_, at) => !names.includes(fields[at - (at % 2)] ?? ''))
}

type Present<Given> = { [Name in keyof Given]?: Exclude<Given[Name], undefined> }

/** Without what was left open. */
function present<Given extends object>(given: Given): Present<Given> {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Present<Given>
}
