import type { Redis } from 'ioredis'
import { look } from './inspection.ts'
import { cronDueKey, cronKey, settingsKey } from './keys.ts'
import { asArray, asNumber, asOptionalNumber, asText } from './replies.ts'
import { dueCron, fireCron, listCron, removeCron, runCron, setCron } from './scripts/cron.ts'
import { run } from './scripts/script.ts'

/** Recurring schedules as Redis has them; see scripts/cron.ts. Times and rules are JSON here, and read elsewhere. */

/** How a schedule stands. */
export interface CronState {
  readonly version: string
  /** The tick that it waits for; undefined if there is none any more. */
  readonly dueMs: number | undefined
  /** Whether that tick waits for the job of the one before. */
  readonly isHeld: boolean
  readonly fired: number
  readonly skipped: number
  readonly lastTickMs: number | undefined
  readonly lastJobId: string | undefined
}

export interface CronRow {
  readonly name: string
  readonly timing: string
  readonly rules: string
  /** Undefined where somebody has bent it. */
  readonly state: CronState | undefined
}

export interface DueRows {
  readonly nowMs: number
  readonly nextLookMs: number | undefined
  readonly rows: readonly CronRow[]
}

/** The schedules that are to be looked at now, the first ones. */
export async function readDueCron(client: Redis, stream: string, most: number): Promise<DueRows> {
  const reply = asArray(await run(client, dueCron, [cronKey(stream), cronDueKey(stream)], [most]))
  const [nowMs, nextLook, ...rows] = reply
  return {
    nowMs: asNumber(nowMs),
    nextLookMs: asOptionalNumber(nextLook),
    rows: rows.map((row) => {
      const [name, text, state] = asArray(row).map(asText)
      return asRow(name, text, state)
    }),
  }
}

/** What was worked out for a schedule that is due. */
export interface CronFiring {
  readonly name: string
  readonly version: string
  readonly dueMs: number
  readonly overlap: string
  /** Undefined sets it aside: nothing could be worked out. */
  readonly ticks: readonly number[] | undefined
  readonly nextMs: number | undefined
}

export type CronOutcome =
  'gone' | 'aside' | { readonly fired: number; readonly skipped: number; readonly isHeld: boolean }

export interface Fired {
  readonly nowMs: number
  readonly nextLookMs: number | undefined
  /** Of the first ones; those behind them were not looked at. */
  readonly outcomes: readonly CronOutcome[]
}

/** Fires each of them whose state is still the one that it was worked out from. */
export async function fireDue(
  client: Redis,
  stream: string,
  firings: readonly CronFiring[],
  heldMs: number,
): Promise<Fired> {
  const keys = [stream, settingsKey(stream), cronKey(stream), cronDueKey(stream)]
  const args = firings.flatMap(({ name, version, dueMs, nextMs, overlap, ticks }) => [
    ...[name, version, dueMs, nextMs ?? '-', overlap],
    ...(ticks === undefined ? [-1] : [ticks.length, ...ticks]),
  ])
  const [, nextLook, nowMs, ...outcomes] = asArray(await run(client, fireCron, keys, [heldMs, ...args]))
  return {
    nowMs: asNumber(nowMs),
    nextLookMs: asOptionalNumber(nextLook),
    outcomes: outcomes.map(asText).map((text) => {
      if (text === 'gone' || text === 'aside') return text
      const [fired, skipped, held] = text.split(' ')
      return { fired: Number(fired), skipped: Number(skipped), isHeld: held === '1' }
    }),
  }
}

/** A schedule as it is to be written. */
export interface CronWritten {
  readonly name: string
  readonly timing: string
  readonly rules: string
  /** The flat fields of its jobs, as JSON. */
  readonly job: string
  /** The tick to wait for, if its times are new. */
  readonly nextMs: number | undefined
  /** Of a declaration in code: what tells it from another one. */
  readonly declared?: string
  /** It was declared before, and is written only where it was lost. */
  readonly isAgain?: boolean
}

export type CronSet = { readonly outcome: 'new' | 'set' | 'same'; readonly dueMs: number | undefined } | 'kept' | 'full'

export async function writeCron(
  client: Redis,
  stream: string,
  { name, rules, timing, job, nextMs, declared = '', isAgain = false }: CronWritten,
  most: number,
): Promise<CronSet> {
  const args = [name, rules, timing, job, nextMs ?? '-', most, declared, isAgain ? 1 : 0]
  const [outcome, due] = asArray(await run(client, setCron, [cronKey(stream), cronDueKey(stream)], args)).map(asText)
  if (outcome === 'kept' || outcome === 'full') return outcome
  return { outcome: outcome as 'new' | 'set' | 'same', dueMs: timeOf(due) }
}

/** Whether there was one. */
export async function deleteCron(client: Redis, stream: string, name: string): Promise<boolean> {
  return asNumber(await run(client, removeCron, [cronKey(stream), cronDueKey(stream)], [name])) === 1
}

/** Publishes its job once, now. Returns the id of the job; undefined if there is no such schedule. */
export async function runCronNow(
  client: Redis,
  stream: string,
  name: string,
): Promise<{ readonly id: string } | 'broken' | undefined> {
  const [id] = asArray(await run(client, runCron, [stream, cronKey(stream)], [name]))
  if (id === undefined) return undefined
  return id === 'broken' ? id : { id: asText(id) }
}

export interface CronPage {
  readonly nowMs: number
  readonly more: boolean
  /** With when each is looked at, as Redis writes it. */
  readonly rows: readonly (CronRow & { readonly score: string })[]
}

export async function readCron(
  client: Redis,
  stream: string,
  { after, limit }: { after: { score: string; name: string } | undefined; limit: number },
): Promise<CronPage> {
  const args = [after?.score ?? '', after?.name ?? '', limit]
  const reply = asArray(await look(client, listCron, [cronKey(stream), cronDueKey(stream)], args))
  const [nowMs, more, ...rows] = reply
  return {
    nowMs: asNumber(nowMs),
    more: asNumber(more) === 1,
    rows: rows.map((row) => {
      const [name, score = '', text, state] = asArray(row).map(asText)
      return { ...asRow(name, text, state), score }
    }),
  }
}

/** When the first one is to be looked at; undefined if there is none, or none that has a tick to come. */
export async function readCronDueMs(client: Redis, stream: string): Promise<number | undefined> {
  const [, score] = await client.zrange(cronDueKey(stream), '0', '0', 'WITHSCORES')
  return score === undefined || score === 'inf' ? undefined : Number(score)
}

/** How many were set aside, as they could not be fired. Of those that are never due the first 500 are looked at. */
export async function countCronAside(client: Redis, stream: string): Promise<number> {
  const { rows } = await readCron(client, stream, { after: { score: 'inf', name: '' }, limit: 500 })
  return rows.filter(({ state }) => state === undefined || state.dueMs !== undefined).length
}

/** How many schedules there are. */
export async function countCron(client: Redis, stream: string): Promise<number> {
  return client.zcard(cronDueKey(stream))
}

function asRow(name = '', text = '', state = ''): CronRow {
  const [timing = '', rules = ''] = text.split('\n')
  return { name, timing, rules, state: stateOf(state) }
}

function stateOf(text: string): CronState | undefined {
  const [version, due, held, fired, skipped, tick, job] = text.split(' ')
  if (version === undefined || job === undefined) return undefined
  return {
    version,
    dueMs: timeOf(due),
    isHeld: held === '1',
    fired: Number(fired),
    skipped: Number(skipped),
    lastTickMs: timeOf(tick),
    lastJobId: job === '-' ? undefined : job,
  }
}

function timeOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}
