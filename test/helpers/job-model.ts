/**
 * What a test expects of jobs: where each group has each of them. And what Redis holds, read in one step, to compare.
 */
import type { Redis } from 'ioredis'
import { expect } from 'vitest'
import { readLetter } from '../../src/redis/dead-fields.ts'
import { compareIds, tallySlot } from '../../src/redis/entry-id.ts'
import {
  cancelledKey,
  deadKey,
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  redeliveryKey,
  scheduledJobsKey,
  scheduledKey,
  settingsKey,
  tallyKey,
} from '../../src/redis/keys.ts'
import type { Source } from '../../src/redis/member.ts'

export const STREAM = 'orders'
export const GROUPS = ['billing', 'main'] as const
export type Group = (typeof GROUPS)[number]

/** Where a group has a job. `delayed`: it is in no group yet. */
export type Place =
  | { readonly at: 'delayed' }
  | { readonly at: 'waiting'; readonly source: Source; readonly entryId: string }
  | {
      readonly at: 'pending'
      readonly source: Source
      readonly entryId: string
      readonly owner: string
      readonly deliveries: number
    }
  | { readonly at: 'scheduled'; readonly due: string }
  | { readonly at: 'dead'; readonly deadId: string }
  | { readonly at: 'settled' }

export interface Life {
  place: Place
  /** Attempts of this round that failed, and of all rounds before. */
  failed: number
  past: number
  firstFailedMs: number | undefined
  /** Since when it has waited for a worker that knows it. */
  waitedSince: string | undefined
  /** Deliveries of the entry that it was put off from, without the last. */
  pastDeliveries: string | undefined
}

export interface Job {
  readonly id: string
  /** Names and values as they were published, without the id of a delayed publish. */
  readonly raw: readonly Buffer[]
  /** When it is due, while it is a delayed publish. */
  due: string | undefined
  /** Its entry in the stream, once it has one. */
  entryId: string | undefined
  /** The only group that has it, where it is a copy that a replay made. */
  readonly copyIn: Group | undefined
  readonly lives: Readonly<Record<Group, Life>>
}

export type Outcome =
  'completed' | 'late' | 'retried' | 'waited' | 'dead' | 'cancelled' | 'redriven' | 'discarded' | 'replayed'

const UNTRIED = { failed: 0, past: 0, firstFailedMs: undefined, waitedSince: undefined, pastDeliveries: undefined }

export class JobModel {
  readonly jobs: Job[] = []
  /** Members of the set of cancelled jobs. */
  readonly cancelled = new Set<string>()
  /** Jobs that were settled and then delivered again by a rewind. */
  readonly runAgain: Record<Group, number> = { billing: 0, main: 0 }
  readonly #tallies = new Map<string, number>()

  add(job: Pick<Job, 'id' | 'raw'> & { due?: string }): Job {
    const place: Place = job.due === undefined ? { at: 'waiting', source: 0, entryId: job.id } : { at: 'delayed' }
    const life = (): Life => ({ place, ...UNTRIED })
    const entryId = job.due === undefined ? job.id : undefined
    const lives = { billing: life(), main: life() }
    const added = { ...job, due: job.due, entryId, copyIn: undefined, lives }
    this.jobs.push(added)
    return added
  }

  /** A copy of a job, of which only one group has something: an entry of its redelivery stream. */
  addCopy(group: Group, { id, raw, entryId }: { id: string; raw: readonly Buffer[]; entryId: string }): Job {
    const life = (one: Group): Life => {
      const place: Place = one === group ? { at: 'waiting', source: 1, entryId } : { at: 'settled' }
      return { place, ...UNTRIED }
    }
    const lives = { billing: life('billing'), main: life('main') }
    const added: Job = { id, raw, due: undefined, entryId: undefined, copyIn: group, lives }
    this.jobs.push(added)
    this.count(group, id, 'replayed')
    return added
  }

  /** How often jobs ended so in a group: all, or those of the minute of an id. */
  counted(group: Group, outcome: Outcome, id?: string): number {
    const { hour, minute } = tallySlot(id ?? '0-0')
    const begin = id === undefined ? `${group} ` : `${group} ${hour} ${minute}:`
    const found = [...this.#tallies].filter(([name]) => name.startsWith(begin) && name.endsWith(`:${outcome}`))
    return found.reduce((sum, [, count]) => sum + count, 0)
  }

  job(id: string): Job {
    const found = this.jobs.find((job) => job.id === id)
    if (found === undefined) throw new Error(`no job ${id}`)
    return found
  }

  count(group: Group, id: string, outcome: Outcome): void {
    const { hour, minute } = tallySlot(id)
    const name = `${group} ${hour} ${minute}:${outcome}`
    this.#tallies.set(name, (this.#tallies.get(name) ?? 0) + 1)
  }

  isCancelled(group: Group, id: string): boolean {
    return this.cancelled.has(id) || this.cancelled.has(`${id} ${group}`)
  }

  /** Entries that the group has not been given yet, in their order. */
  waiting(group: Group, source: Source): { job: Job; entryId: string }[] {
    return this.jobs
      .flatMap((job) => {
        const { place } = job.lives[group]
        return place.at === 'waiting' && place.source === source ? [{ job, entryId: place.entryId }] : []
      })
      .sort((a, b) => compareIds(a.entryId, b.entryId))
  }

  tallies(): Record<string, number> {
    return Object.fromEntries(this.#tallies)
  }

  hours(): string[] {
    return [...new Set(this.jobs.map(({ id }) => tallySlot(id).hour))]
  }
}

/** Compares all that Redis holds of the jobs with what the model says. */
export async function expectAsModelled(client: Redis, model: JobModel): Promise<void> {
  const seen = await look(client, model)
  expect(seen.entries.map(({ id }) => id)).toEqual(
    model.jobs.flatMap(({ entryId }) => entryId ?? []).sort((a, b) => compareIds(a, b)),
  )
  for (const job of model.jobs) {
    if (job.entryId === undefined) continue
    const entry = seen.entries.find(({ id }) => id === job.entryId)
    expectSameBytes(entry?.fields ?? [], job)
  }
  expect(new Map(seen.delayed.map(({ id, due }) => [id, due]))).toEqual(
    new Map(model.jobs.flatMap(({ id, due }) => (due === undefined ? [] : [[id, due]]))),
  )
  expect(seen.delayedJobs.sort()).toEqual(seen.delayed.map(({ id }) => id).sort())
  for (const { id, error, fields } of seen.delayed) {
    expect(error).toBe('')
    expectSameBytes(fields, model.job(id))
    expect(control(fields)).toEqual({ id })
  }
  expect(new Set(seen.cancelled)).toEqual(model.cancelled)
  for (const group of GROUPS) expectGroup(seen, model, group)
  const tallies = Object.assign({}, ...GROUPS.map((group) => seen.groups[group].tallies)) as Record<string, number>
  expect(tallies).toEqual(model.tallies())
}

function expectGroup(seen: Seen, model: JobModel, group: Group): void {
  const own = seen.groups[group]
  const index: Record<string, string> = {}
  for (const job of model.jobs) {
    const { place } = job.lives[group]
    expect([job.id, group, placesIn(seen, job, group)]).toEqual([job.id, group, [place]])
    if (place.at === 'scheduled') index[job.id] = 'scheduled'
    else if (place.at === 'dead') index[job.id] = `dead ${place.deadId}`
    else if ('source' in place && place.source === 1) index[job.id] = `redelivery ${place.entryId}`
  }
  expect(own.index).toEqual(index)
  expect(own.scheduledJobs.sort()).toEqual(own.scheduled.map(({ id }) => id).sort())
  for (const { id, fields } of own.scheduled) expectRetry(fields, model.job(id), group)
  for (const { fields } of own.redelivery.filter(({ id }) => isLive(model, group, id))) {
    const job = model.job(control(fields)['id'] ?? '')
    expectRetry(fields, job, group)
  }
  for (const { fields } of own.dead) expectLetter(fields, model, group)
  expectTallies(seen, model, group)
  // What a group that vanished is made again from must not lie beyond what it has not settled.
  for (const { place } of model.jobs.map(({ lives }) => lives[group])) {
    if ('source' in place && place.source === 0 && own.floor !== null) {
      expect(compareIds(own.floor, place.entryId)).toBeLessThan(0)
    }
  }
}

/** The tally alone must add up: no job is settled twice, and none is missing. */
function expectTallies(seen: Seen, model: JobModel, group: Group): void {
  const own = seen.groups[group]
  const sums: Record<string, number> = {}
  for (const [name, count] of Object.entries(own.tallies)) {
    const outcome = name.slice(name.lastIndexOf(':') + 1)
    sums[outcome] = (sums[outcome] ?? 0) + count
  }
  const { completed = 0, cancelled = 0, discarded = 0, dead = 0, redriven = 0 } = sums
  expect(dead - redriven - discarded).toBe(own.dead.length)
  const settled = model.jobs.filter(({ entryId, copyIn, lives }) => {
    return (entryId !== undefined || copyIn === group) && lives[group].place.at === 'settled'
  })
  expect(completed + cancelled + discarded).toBe(settled.length + model.runAgain[group])
}

/** Every place in which Redis has a job for a group; nowhere is settled. */
function placesIn(seen: Seen, job: Job, group: Group): Place[] {
  const own = seen.groups[group]
  const places: Place[] = seen.delayed.some(({ id }) => id === job.id) ? [{ at: 'delayed' }] : []
  for (const source of [0, 1] as const) {
    const entries = source === 0 ? seen.entries : own.redelivery
    for (const { id: entryId, fields } of entries) {
      if ((control(fields)['id'] ?? entryId) !== job.id) continue
      const pending = own.pending[source].find(([id]) => id === entryId)
      if (pending !== undefined) {
        places.push({ at: 'pending', source, entryId, owner: pending[1], deliveries: pending[3] })
      } else if (compareIds(entryId, own.lastDelivered[source]) > 0) {
        places.push({ at: 'waiting', source, entryId })
      }
    }
  }
  for (const { id, due } of own.scheduled) if (id === job.id) places.push({ at: 'scheduled', due })
  for (const { id: deadId, fields } of own.dead) {
    if (readLetter(fields).provenance.get('dead-id') === job.id) places.push({ at: 'dead', deadId })
  }
  return places.length === 0 ? [{ at: 'settled' }] : places
}

function isLive(model: JobModel, group: Group, entryId: string): boolean {
  return model.jobs.some(({ lives }) => {
    const { place } = lives[group]
    return 'source' in place && place.entryId === entryId
  })
}

/** A retry that waits, or what it or a redrive has become. */
function expectRetry(fields: readonly Buffer[], job: Job, group: Group): void {
  const { failed, past, firstFailedMs, waitedSince, pastDeliveries } = job.lives[group]
  const told = control(fields)
  const names = ['id', 'attempt', 'past-attempts', 'first-failed', 'waited-since', 'past-deliveries']
  expect(names.map((name) => told[name])).toEqual([
    job.id,
    failed === 0 ? undefined : String(failed),
    past === 0 ? undefined : String(past),
    firstFailedMs === undefined ? undefined : String(firstFailedMs),
    waitedSince,
    pastDeliveries,
  ])
  expectSameBytes(fields, job)
}

function expectLetter(flat: readonly Buffer[], model: JobModel, group: Group): void {
  const { provenance, fields } = readLetter(flat)
  const job = model.job(provenance.get('dead-id') ?? '')
  const { failed, past } = job.lives[group]
  expect([provenance.get('dead-attempts'), provenance.get('dead-total-attempts')]).toEqual([
    String(failed),
    String(past + failed),
  ])
  const raw = (fields ?? []).flatMap(({ name, value }) => [Buffer.from(name), Buffer.from(value)])
  expectSameBytes(raw, job)
}

const CONTROL = ['id', 'attempt', 'at', 'first-failed', 'past-attempts', 'waited-since', 'past-deliveries']

function control(fields: readonly Buffer[]): Record<string, string> {
  const told: Record<string, string> = {}
  for (let at = 0; at < fields.length; at += 2) {
    const name = fields[at]?.toString() ?? ''
    if (!CONTROL.includes(name)) continue
    // The first one would count, and the later ones would be what was meant.
    if (Object.hasOwn(told, name)) expect(told).not.toHaveProperty([name])
    told[name] = fields[at + 1]?.toString() ?? ''
  }
  return told
}

function expectSameBytes(fields: readonly Buffer[], job: Job): void {
  const own = fields.filter((_, at) => !CONTROL.includes(fields[at - (at % 2)]?.toString() ?? ''))
  const isSame = own.length === job.raw.length && own.every((field, at) => field.equals(job.raw[at] as Buffer))
  if (isSame) return
  expect([job.id, own.map(String)]).toEqual([job.id, job.raw.map(String)])
  // The same as text, and other bytes.
  expect([job.id, isSame]).toEqual([job.id, true])
}

interface Entry {
  readonly id: string
  readonly fields: readonly Buffer[]
}

interface Scheduled extends Entry {
  readonly due: string
  readonly error: string
}

interface Seen {
  readonly entries: readonly Entry[]
  readonly delayed: readonly Scheduled[]
  readonly delayedJobs: string[]
  readonly cancelled: readonly string[]
  readonly groups: Readonly<Record<Group, SeenGroup>>
}

interface SeenGroup {
  readonly redelivery: readonly Entry[]
  readonly pending: readonly [PendingRow[], PendingRow[]]
  readonly lastDelivered: readonly [string, string]
  readonly scheduled: readonly Scheduled[]
  readonly scheduledJobs: string[]
  readonly dead: readonly Entry[]
  readonly index: Record<string, string>
  readonly floor: string | null
  readonly tallies: Record<string, number>
}

type PendingRow = [id: string, owner: string, idleMs: number, deliveries: number]

/** A scheduled set with its records: {id, due, error, fields}; and the ids in the hash beside it. */
const READ_SCHEDULED = `
  local rows = {}
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local raw = redis.call('HGET', KEYS[2], id)
    local record = raw and cmsgpack.unpack(raw) or {'no record', {}}
    rows[#rows + 1] = {id, redis.call('ZSCORE', KEYS[1], id), record[1], record[2]}
  end
  return {rows, redis.call('HKEYS', KEYS[2])}`

/** One transaction: nothing is seen on its way. */
async function look(client: Redis, model: JobModel): Promise<Seen> {
  const hours = model.hours()
  const asked = client.multi()
  asked.xrangeBuffer(STREAM, '-', '+')
  asked.callBuffer('EVAL', READ_SCHEDULED, 2, scheduledKey(STREAM), scheduledJobsKey(STREAM))
  asked.zrange(cancelledKey(STREAM), 0, '-1')
  for (const group of GROUPS) {
    asked.xrangeBuffer(redeliveryKey(STREAM, group), '-', '+')
    for (const key of [STREAM, redeliveryKey(STREAM, group)]) asked.call('XPENDING', key, group, '-', '+', 1000)
    for (const key of [STREAM, redeliveryKey(STREAM, group)]) asked.call('XINFO', 'GROUPS', key)
    asked.callBuffer('EVAL', READ_SCHEDULED, 2, groupScheduledKey(STREAM, group), groupScheduledJobsKey(STREAM, group))
    asked.xrangeBuffer(deadKey(STREAM, group), '-', '+')
    asked.hgetall(indexKey(STREAM, group))
    asked.hget(settingsKey(STREAM), `group:${group}:floor`)
    for (const hour of hours) asked.hgetall(tallyKey(STREAM, group, hour))
  }
  const replies = ((await asked.exec()) ?? []).map(([error, reply]) => {
    if (error !== null) throw error
    return reply
  })
  const next = <T>() => replies.shift() as T
  const scheduled = () => {
    const [rows, jobs] = next<[[Buffer, Buffer, Buffer, Buffer[]][], Buffer[]]>()
    const told = rows.map(([id, due, error, fields]) => {
      return { id: id.toString(), due: due.toString(), error: error.toString(), fields }
    })
    return { rows: told, jobs: jobs.map(String) }
  }
  const entries = () => next<[Buffer, Buffer[]][]>().map(([id, fields]) => ({ id: id.toString(), fields }))
  const stream = entries()
  const delayed = scheduled()
  const cancelled = next<string[]>()
  const groups = GROUPS.map((group): [Group, SeenGroup] => {
    const redelivery = entries()
    const pending: [PendingRow[], PendingRow[]] = [next(), next()]
    const lastDelivered: [string, string] = [lastOf(next(), group), lastOf(next(), group)]
    const { rows, jobs } = scheduled()
    const [dead, index, floor] = [entries(), next<Record<string, string>>(), next<string | null>()]
    const tallies: Record<string, number> = {}
    for (const hour of hours) {
      for (const [name, count] of Object.entries(next<Record<string, string>>())) {
        tallies[`${group} ${hour} ${name}`] = Number(count)
      }
    }
    return [
      group,
      { redelivery, pending, lastDelivered, scheduled: rows, scheduledJobs: jobs, dead, index, floor, tallies },
    ]
  })
  return {
    entries: stream,
    delayed: delayed.rows,
    delayedJobs: delayed.jobs,
    cancelled,
    groups: Object.fromEntries(groups) as Record<Group, SeenGroup>,
  }
}

function lastOf(groups: string[][], group: string): string {
  const found = groups.find((flat) => flat[flat.indexOf('name') + 1] === group)
  if (found === undefined) throw new Error(`no group ${group}`)
  return found[found.indexOf('last-delivered-id') + 1] ?? ''
}
