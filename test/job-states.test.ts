import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Asking } from '../src/asking.ts'
import { provenanceOf } from '../src/decide.ts'
import { Inspector, type JobPlace } from '../src/index.ts'
import { purgeBatch, redriveBatch, type DeadRef } from '../src/redis/dead.ts'
import { compareIds } from '../src/redis/entry-id.ts'
import { deadKey, groupScheduledKey, redeliveryKey } from '../src/redis/keys.ts'
import { sourceKey, type Member, type Source } from '../src/redis/member.ts'
import { append, fateOf, open } from '../src/redis/publishing.ts'
import { promoteDue, promoteNow } from '../src/redis/scheduling.ts'
import { settle, settleOthers, type Fate, type FencedOutcome } from '../src/redis/settling.ts'
import { begin, handBackAll, join, readNew } from '../src/redis/stream.ts'
import { decodeJob } from '../src/wire.ts'
import { expectAudited, expectFaultTold } from './helpers/audited.ts'
import { copyByHand } from './helpers/audits.ts'
import { onEnd } from './helpers/cleanup.ts'
import { expectExplained } from './helpers/explained.ts'
import { expectAsModelled, GROUPS, JobModel, STREAM, type Group, type Job, type Place } from './helpers/job-model.ts'
import { withRedis } from './helpers/redis.ts'

/**
 * The life of a job, step by step and without workers: whatever is done to it in whatever order, also twice, too late or by
 * somebody who has lost it, each group has it in exactly one place, and that is the one that is expected.
 */

const redis = withRedis()
const HOUR_MS = 3_600_000
const MOST_JOBS = 5
const WAITED_SINCE = '9'

/** A delivery as a worker remembers it, for as long as it likes: also when it has lost it. */
interface Held {
  readonly member: Member
  readonly group: Group
  readonly job: Job
  readonly source: Source
  readonly entryId: string
  /** The count that it was read or claimed with, and the one that it runs with. */
  readonly before: number
  deliveries: number
  readonly failed: number
  readonly past: number
  readonly firstFailedMs: number | undefined
}

type Fenced = 'retry' | 'retry now' | 'wait' | 'wait now' | 'dead' | 'cancelled'

/** One of those that the step can do something to, or of all: most of what is left to chance alone does nothing. */
interface Pick {
  readonly at: number
  readonly isFit: boolean
}

type Step =
  | { readonly do: 'publish'; readonly shape: number }
  | { readonly do: 'publish later'; readonly shape: number; readonly delayMs: number; readonly isResent: boolean }
  | { readonly do: 'read'; readonly group: Group; readonly consumer: string; readonly count: number }
  | { readonly do: 'complete'; readonly held: Pick; readonly resent: boolean }
  | {
      readonly do: 'settle'
      readonly held: Pick
      readonly kind: Fenced
      readonly off: number
      readonly resent: boolean
    }
  | { readonly do: 'hand back'; readonly held: Pick; readonly off: number }
  | {
      readonly do: 'claim'
      readonly group: Group
      readonly consumer: string
      readonly job: Pick
      readonly begins: boolean
    }
  | { readonly do: 'begin'; readonly held: Pick }
  | { readonly do: 'promote'; readonly group: Group | null; readonly job: Pick }
  | { readonly do: 'promote due'; readonly group: Group | null }
  | { readonly do: 'reschedule'; readonly group: Group | undefined; readonly job: Pick; readonly delayMs: number }
  | { readonly do: 'cancel'; readonly group: Group | undefined; readonly job: Pick }
  | { readonly do: 'redrive' | 'purge'; readonly group: Group; readonly letters: readonly Pick[] }
  | { readonly do: 'rewind'; readonly group: Group; readonly job: Pick }
  | { readonly do: 'copy'; readonly group: Group; readonly job: Pick }
  | { readonly do: 'pause'; readonly group: Group | undefined; readonly isOver: boolean }

/** Shapes of payloads: ordinary, bytes that are no text, a field twice, more fields than a dead letter takes unpacked. */
const SHAPES: readonly (readonly (string | Buffer)[])[] = [
  ['job', 'mail', 'data', '{"n":1}'],
  ['job', 'mail', 'data', '{"text":"ä\\u0000 ☃"}', 'h-bytes', Buffer.from([0, 255, 254, 10, 13, 128])],
  ['h-tag', 'one', 'job', 'mail', 'h-tag', 'two', 'data', 'null', '', ''],
  ['job', 'mail', 'data', '1', ...Array.from({ length: 1100 }, (_, n) => [`h-${n}`, String(n)]).flat()],
]

type JobStep = Extract<Step, { readonly job: Pick }>

class Run {
  readonly model = new JobModel()
  /** The newest first. */
  readonly held: Held[] = []
  readonly letters: Record<Group, DeadRef[]> = { billing: [], main: [] }
  readonly #last = new Map<string, string>()
  readonly #inspector: Inspector
  readonly #reached: Set<string>
  readonly #producerId = randomUUID()
  #seq = 0

  constructor(inspector: Inspector, reached: Set<string>) {
    this.#inspector = inspector
    this.#reached = reached
  }

  async start(): Promise<void> {
    await redis.flush()
    for (const group of GROUPS) {
      await join(redis.client, memberOf(group, 'a'), { startAt: 'oldest', leaseMs: 10_000, maxDeliveries: 3 })
    }
    expect(await open(redis.client, STREAM, this.#producerId)).toBe(true)
  }

  async do(step: Step): Promise<void> {
    await this.take(step)
    await expectAsModelled(redis.client, this.model)
    await expectExplained(this.#inspector, this.model)
  }

  /** Without a look at what has come of it. */
  async take(step: Step): Promise<void> {
    switch (step.do) {
      case 'publish':
        return this.#publish(step.shape)
      case 'publish later':
        return this.#publishLater(step)
      case 'read':
        return this.#read(step)
      case 'complete':
        return this.#withHeld(step.held, (held) => this.#complete(held, step.resent))
      case 'settle':
        return this.#withHeld(step.held, (held) => this.#settle(held, step))
      case 'hand back':
        return this.#withHeld(step.held, (held) => this.#handBack(held, step.off))
      case 'claim':
        return this.#withJob(step, (job) => this.#claim(job, step))
      case 'begin':
        return this.#withHeld(step.held, (held) => this.#begin(held))
      case 'promote':
        return this.#withJob(step, (job) => this.#promote(job, step.group))
      case 'promote due':
        return this.#promoteDue(step.group)
      case 'reschedule':
        return this.#withJob(step, (job) => this.#reschedule(job, step))
      case 'cancel':
        return this.#withJob(step, (job) => this.#cancel(job, step.group))
      case 'redrive':
      case 'purge':
        return this.#move(step)
      case 'rewind':
        return this.#withJob(step, (job) => this.#rewind(job, step.group))
      case 'copy':
        return this.#withJob(step, (job) => this.#copy(job, step.group))
      case 'pause':
        return this.#pause(step)
    }
  }

  async #withHeld(pick: Pick, act: (held: Held) => Promise<void>): Promise<void> {
    const held = picked(pick, this.held, (one) => this.#isOwn(one, one.deliveries))
    if (held !== undefined) await act(held)
  }

  async #withJob(step: JobStep, act: (job: Job) => Promise<void>): Promise<void> {
    const job = picked(step.job, this.model.jobs, (one) => this.#isFit(one, step))
    if (job !== undefined) await act(job)
  }

  #isFit(job: Job, step: JobStep): boolean {
    const groups = step.group === undefined || step.group === null ? GROUPS : [step.group]
    const isAt = (...places: Place['at'][]) => groups.some((one) => places.includes(job.lives[one].place.at))
    if (step.do === 'claim') return isAt('pending')
    if (step.do === 'promote') return this.#isScheduled(job, step.group)
    if (step.do === 'rewind') return this.#canRewind(job, step.group)
    if (step.do === 'copy') return job.entryId === job.id
    return step.do === 'cancel' ? !isAt('settled') : isAt('scheduled', 'delayed')
  }

  #isDead({ id, deadId }: DeadRef, group: Group): boolean {
    const { place } = this.model.job(id).lives[group]
    return place.at === 'dead' && place.deadId === deadId
  }

  #note(what: string): void {
    this.#reached.add(what)
  }

  async #publish(shape: number): Promise<void> {
    if (this.model.jobs.length === MOST_JOBS) return
    const raw = SHAPES[shape] as (string | Buffer)[]
    const id = (await redis.client.xadd(STREAM, '*', ...raw)) as string
    this.#last.set(STREAM, id)
    this.model.add({ id, raw: raw.map((field) => Buffer.from(field)) })
  }

  async #publishLater({ shape, delayMs, isResent }: Step & { do: 'publish later' }): Promise<void> {
    if (this.model.jobs.length === MOST_JOBS) return
    const fields = (SHAPES[shape] as (string | Buffer)[]).map(String)
    const batch = { producerId: this.#producerId, seq: ++this.#seq, items: [{ fields, due: `+${delayMs}` }] }
    const appended = await append(redis.client, STREAM, batch)
    if (isResent) expect(await append(redis.client, STREAM, batch)).toEqual(appended)
    const { id, outcome } = fateOf((appended.kind === 'done' ? appended.ids[0] : undefined) ?? '')
    expect(outcome).toBe('scheduled')
    const due = String(Number(id.split('-')[0]) + delayMs)
    this.model.add({ id, raw: fields.map((field) => Buffer.from(field)), due })
  }

  async #read({ group, consumer, count }: Step & { do: 'read' }): Promise<void> {
    const member = memberOf(group, consumer)
    const expected = ([0, 1] as const).map((source) => this.model.waiting(group, source).slice(0, count))
    const found = await readNew(redis.client, member, { count, blockMs: 1 })
    expect(found.map((entries) => entries.map(({ id }) => id))).toEqual(
      expected.map((entries) => entries.map(({ entryId }) => entryId)),
    )
    for (const source of [0, 1] as const) {
      for (const { id: entryId, fields } of found[source]) {
        const held = this.#hold({ member, source, entryId, fields: fields, before: 0 })
        held.job.lives[group].place = { at: 'pending', source, entryId, owner: consumer, deliveries: 1 }
        this.#note(source === 0 ? 'read' : 'read again')
      }
    }
  }

  #hold(read: { member: Member; source: Source; entryId: string; fields: string[]; before: number }): Held {
    const { member, source, entryId, before } = read
    const job = decodeJob(entryId, read.fields)
    if (job.kind !== 'job') throw new Error(job.kind)
    const group = member.group as Group
    const life = this.model.job(job.id).lives[group]
    const { failed, earlier } = job
    const [past, firstFailedMs] = [earlier?.spent ?? 0, earlier?.firstFailedMs]
    expect({ failed, past, firstFailedMs }).toEqual({
      failed: life.failed,
      past: life.past,
      firstFailedMs: life.firstFailedMs,
    })
    const told = { failed, past, firstFailedMs, job: this.model.job(job.id) }
    const held: Held = { member, group, source, entryId, before, deliveries: before + 1, ...told }
    this.held.unshift(held)
    return held
  }

  /** The place of the delivery if it still is one, whoever has it. */
  #pendingOf({ job, group, entryId }: Held): (Place & { at: 'pending' }) | undefined {
    const { place } = job.lives[group]
    return place.at === 'pending' && place.entryId === entryId ? place : undefined
  }

  #isOwn(held: Held, deliveries: number): boolean {
    const place = this.#pendingOf(held)
    return place?.owner === held.member.consumer && place.deliveries === deliveries
  }

  async #complete(held: Held, resent: boolean): Promise<void> {
    const { job, group, source, entryId, member } = held
    const isPending = this.#pendingOf(held) !== undefined
    const { late } = await settle(redis.client, member, { source, done: [{ entryId, id: job.id }], resent })
    expect(late).toBe(isPending || resent ? 0 : 1)
    if (isPending) {
      job.lives[group].place = { at: 'settled' }
      this.model.count(group, job.id, 'completed')
      this.#note('completed')
    } else if (!resent) {
      this.model.count(group, job.id, 'late')
      this.#note('late')
    }
  }

  async #settle(held: Held, { kind, off, resent }: Step & { do: 'settle' }): Promise<void> {
    const { job, group, source, member } = held
    const deliveries = held.deliveries + off
    const expected = this.#fateOf(held, { kind, deliveries, resent })
    const outcomes = [outcomeOf(held, kind, deliveries)]
    expect(await settleOthers(redis.client, member, { source, outcomes, resent })).toEqual([expected])
    this.#note(expected)
    const life = job.lives[group]
    if (expected === 'retried') {
      life.failed = held.failed + 1
      const due = (await redis.client.zscore(groupScheduledKey(STREAM, group), job.id)) ?? ''
      life.place = { at: 'scheduled', due }
      // The first failure is told by the server's clock, which is that of the due time.
      life.firstFailedMs ??= Number(due) - (kind === 'retry' ? HOUR_MS : 0)
      life.waitedSince = undefined
      life.pastDeliveries = undefined
    } else if (expected === 'waits') {
      // Nothing has failed: what it has of attempts stays as it is.
      const due = (await redis.client.zscore(groupScheduledKey(STREAM, group), job.id)) ?? ''
      life.place = { at: 'scheduled', due }
      life.waitedSince = kind === 'wait' ? WAITED_SINCE : undefined
      life.pastDeliveries = deliveries > 1 ? String(deliveries - 1) : undefined
    } else if (expected === 'dead') {
      life.failed = held.failed + 1
      const [deadId] = await this.#newIn(deadKey(STREAM, group))
      life.place = { at: 'dead', deadId: deadId ?? '' }
      this.letters[group].unshift({ deadId: deadId ?? '', id: job.id })
    } else if (expected === 'cancelled') {
      life.place = { at: 'settled' }
    } else {
      return
    }
    this.model.count(group, job.id, expected === 'waits' ? 'waited' : expected)
  }

  #fateOf(held: Held, { kind, deliveries, resent }: { kind: Fenced; deliveries: number; resent: boolean }): Fate {
    if (this.#pendingOf(held) === undefined) return resent ? 'done' : 'stale'
    if (!this.#isOwn(held, deliveries)) return 'stale'
    if (kind === 'cancelled' || this.model.isCancelled(held.group, held.job.id)) return 'cancelled'
    if (kind === 'wait' || kind === 'wait now') return 'waits'
    return kind === 'dead' ? 'dead' : 'retried'
  }

  async #handBack(held: Held, off: number): Promise<void> {
    const { job, group, source, entryId, member } = held
    const [deliveries, newDeliveries] = [held.deliveries + off, held.deliveries - 1]
    const isOwn = this.#isOwn(held, deliveries)
    const handed = await handBackAll(redis.client, member, source, [{ id: entryId, deliveries, newDeliveries }])
    expect(handed).toBe(isOwn ? 1 : 0)
    if (!isOwn) return
    job.lives[group].place = { at: 'pending', source, entryId, owner: ':handback', deliveries: newDeliveries }
    this.#note('handed back')
  }

  /** As a claim does, but for the time that must have passed. */
  async #claim(job: Job, { group, consumer, begins }: Step & { do: 'claim' }): Promise<void> {
    const { place } = job.lives[group]
    if (place.at !== 'pending') return
    const { source, entryId, deliveries } = place
    const member = memberOf(group, consumer)
    const key = sourceKey(member, source)
    await redis.client.xclaim(key, group, consumer, 0, entryId, 'JUSTID')
    job.lives[group].place = { ...place, owner: consumer }
    const [[, fields] = ['', []]] = await redis.client.xrange(key, entryId, entryId)
    const held = this.#hold({ member, source, entryId, fields, before: deliveries })
    this.#note('claimed')
    if (begins) await this.#begin(held)
  }

  async #begin(held: Held): Promise<void> {
    const { job, group, source, entryId, member, before } = held
    const place = this.#pendingOf(held)
    const isOwn = this.#isOwn(held, before) || this.#isOwn(held, before + 1)
    const [begun] = await begin(redis.client, member, source, [{ id: entryId, deliveries: before }])
    expect(begun?.state).toBe(isOwn ? 'ok' : 'lost')
    this.#note(isOwn ? 'begun' : 'lost')
    if (isOwn && place !== undefined) job.lives[group].place = { ...place, deliveries: before + 1 }
  }

  async #promote(job: Job, group: Group | null): Promise<void> {
    const isThere = this.#isScheduled(job, group)
    const moved = await promoteNow(redis.client, { stream: STREAM, group }, [job.id])
    expect(moved).toEqual(isThere ? [job.id] : [])
    await this.#promoted(isThere ? [job] : [], group)
  }

  async #promoteDue(group: Group | null): Promise<void> {
    const nowMs = Number((await redis.client.time())[0]) * 1000 + 60_000
    const due = this.model.jobs.filter((job) => Number(this.#dueOf(job, group) ?? Infinity) < nowMs)
    const { promoted } = await promoteDue(redis.client, { stream: STREAM, group })
    expect(promoted).toBe(due.length)
    if (due.length > 0) this.#note('promoted when due')
    await this.#promoted(due, group)
  }

  #isScheduled(job: Job, group: Group | null): boolean {
    return this.#dueOf(job, group) !== undefined
  }

  #dueOf(job: Job, group: Group | null): string | undefined {
    if (group === null) return job.due
    const { place } = job.lives[group]
    return place.at === 'scheduled' ? place.due : undefined
  }

  async #promoted(jobs: readonly Job[], group: Group | null): Promise<void> {
    const key = group === null ? STREAM : redeliveryKey(STREAM, group)
    const added = await this.#newIn(key)
    expect(added).toHaveLength(jobs.length)
    for (const entryId of added) {
      const fields = (await redis.client.xrange(key, entryId, entryId))[0]?.[1] ?? []
      const job = jobs.find(({ id }) => id === fields[fields.lastIndexOf('id') + 1])
      if (job === undefined) throw new Error(`${entryId} is none of the jobs that were due`)
      this.#note(group === null ? 'promoted into the stream' : 'promoted')
      if (group !== null) {
        job.lives[group].place = { at: 'waiting', source: 1, entryId }
        continue
      }
      job.entryId = entryId
      job.due = undefined
      for (const one of GROUPS) job.lives[one].place = { at: 'waiting', source: 0, entryId }
    }
  }

  /** Entries of a stream that were not there before. */
  async #newIn(key: string): Promise<string[]> {
    const rows = await redis.client.xrange(key, `(${this.#last.get(key) ?? '0-0'}`, '+')
    const ids = rows.map(([id]) => id)
    this.#last.set(key, ids.at(-1) ?? this.#last.get(key) ?? '0-0')
    return ids
  }

  async #reschedule(job: Job, { group, delayMs }: Step & { do: 'reschedule' }): Promise<void> {
    const places = (group === undefined ? [null, ...GROUPS] : [group]).filter((one) => this.#isScheduled(job, one))
    const asked = this.#inspector.scheduled.reschedule(STREAM, job.id, { delayMs, ...(group && { group }) })
    if (places.length === 0) return expectCode(asked, 'ERR_NOT_FOUND')
    const done = await asked
    expect(done.places.map((one) => one.group)).toEqual(places)
    this.#note('rescheduled')
    for (const { group: place, dueMs } of done.places) {
      if (place === null) job.due = String(dueMs)
      else job.lives[place as Group].place = { at: 'scheduled', due: String(dueMs) }
    }
  }

  async #cancel(job: Job, meant: Group | undefined): Promise<void> {
    // A copy is of one group, and leaves nothing behind.
    if (job.copyIn !== undefined && job.lives[job.copyIn].place.at === 'settled') return
    const group = job.copyIn ?? meant
    const asked = this.#inspector.cancel(STREAM, job.id, group === undefined ? {} : { group })
    if (job.due !== undefined) return this.#cancelDelayed(job, { group, asked })
    // A delayed publish that was cancelled is nowhere any more.
    if (job.entryId === undefined && job.copyIn === undefined) return expectCode(asked, 'ERR_NOT_FOUND')
    const expected = (group === undefined ? GROUPS : [group]).map((one) => {
      const { place } = job.lives[one]
      return { group: one, was: wordOf(place), cancelled: place.at !== 'settled' }
    })
    expect((await asked).groups).toEqual(expected)
    for (const { group: one, was } of expected) {
      this.#note(`cancelled ${was}`)
      if (was === 'finished') continue
      if (was === 'scheduled' || was === 'dead') {
        job.lives[one].place = { at: 'settled' }
        this.model.count(one, job.id, was === 'dead' ? 'discarded' : 'cancelled')
      } else {
        // It stays where it is: its worker is told, and ends it.
        this.model.cancelled.add(group === undefined ? job.id : `${job.id} ${group}`)
      }
    }
  }

  async #cancelDelayed(
    job: Job,
    { group, asked }: { group: Group | undefined; asked: Promise<{ delayed: boolean }> },
  ): Promise<void> {
    if (group !== undefined) return expectCode(asked, 'ERR_OPTION')
    expect(await asked).toMatchObject({ cancelled: true, delayed: true, groups: [] })
    this.#note('cancelled delayed')
    job.due = undefined
    for (const one of GROUPS) job.lives[one].place = { at: 'settled' }
  }

  /** Where a job has a place besides its entry it would be in two: each of them is its own then, and not the model's. */
  #canRewind({ entryId }: Job, group: Group): boolean {
    if (entryId === undefined) return false
    return this.model.jobs.every((job) => {
      const { place } = job.lives[group]
      const isBehind = job.entryId !== undefined && compareIds(job.entryId, entryId) >= 0
      if (job.entryId === entryId && place.at === 'waiting') return false
      return !isBehind || place.at === 'settled' || ('source' in place && place.source === 0)
    })
  }

  async #rewind(target: Job, group: Group): Promise<void> {
    if (!this.#canRewind(target, group)) return
    const to = target.entryId ?? ''
    await this.#inspector.groups.rewind(STREAM, group, { to, execute: true, force: true })
    for (const { entryId, lives } of this.model.jobs) {
      if (entryId === undefined || compareIds(entryId, to) < 0) continue
      const life = lives[group]
      if (life.place.at === 'settled') this.model.runAgain[group] += 1
      this.#note(`rewound ${life.place.at}`)
      Object.assign(life, {
        place: { at: 'waiting', source: 0, entryId },
        failed: 0,
        past: 0,
        firstFailedMs: undefined,
        waitedSince: undefined,
        pastDeliveries: undefined,
      })
    }
  }

  async #copy({ id: original, entryId, raw }: Job, group: Group): Promise<void> {
    if (entryId !== original || this.model.jobs.length >= MOST_JOBS + 2) return
    const [id = ''] = await copyByHand(redis.client, [original], memberOf(group, 'a'))
    const [copyId = ''] = await this.#newIn(redeliveryKey(STREAM, group))
    const own = [...raw, Buffer.from('replay-of'), Buffer.from(original)]
    this.model.addCopy(group, { id, raw: own, entryId: copyId })
    this.#note('copied')
  }

  /** Moves nothing: only workers heed it. */
  async #pause({ group, isOver }: Step & { do: 'pause' }): Promise<void> {
    const where = group === undefined ? {} : { group }
    if (isOver) await this.#inspector.resume(STREAM, where)
    else await this.#inspector.pause(STREAM, { ...where, reason: 'a look' })
    this.#note(isOver ? 'resumed' : 'paused')
  }

  async #move({ do: verb, group, letters }: Step & { do: 'redrive' | 'purge' }): Promise<void> {
    const known = this.letters[group]
    const isThere = (letter: DeadRef) => this.#isDead(letter, group)
    const meant = [...new Set(letters.flatMap((pick) => picked(pick, known, isThere) ?? []))]
    if (meant.length === 0) return
    const step = verb === 'redrive' ? redriveBatch : purgeBatch
    const expected = meant.map((letter) => (isThere(letter) ? 'moved' : 'gone'))
    expect(await step(redis.client, { stream: STREAM, group }, meant)).toEqual(expected)
    const moved = meant.filter(isThere)
    const added = verb === 'redrive' ? await this.#newIn(redeliveryKey(STREAM, group)) : []
    expect(added).toHaveLength(verb === 'redrive' ? moved.length : 0)
    for (const what of expected) this.#note(`${verb} ${what}`)
    for (const [at, { id }] of moved.entries()) {
      const life = this.model.job(id).lives[group]
      this.model.count(group, id, verb === 'redrive' ? 'redriven' : 'discarded')
      if (verb === 'purge') {
        life.place = { at: 'settled' }
        continue
      }
      life.place = { at: 'waiting', source: 1, entryId: added[at] ?? '' }
      if (life.past > 0) this.#note('redriven again')
      life.past += life.failed
      life.failed = 0
      life.firstFailedMs = undefined
      life.waitedSince = undefined
      life.pastDeliveries = undefined
    }
  }
}

/** With none that fit, one of all. */
function picked<T>({ at, isFit }: Pick, all: readonly T[], fits: (one: T) => boolean): T | undefined {
  const fit = isFit ? all.filter(fits) : []
  const among = fit.length > 0 ? fit : all
  return among[at % Math.max(1, among.length)]
}

function memberOf(group: Group, consumer: string): Member {
  return { stream: STREAM, group, consumer }
}

function outcomeOf(held: Held, kind: Fenced, deliveries: number): FencedOutcome {
  const { job, entryId, source, failed, past, firstFailedMs, member } = held
  const same = { entryId, id: job.id, deliveries }
  if (kind === 'cancelled') return { ...same, kind }
  const attempt = failed + 1
  if (kind === 'dead') {
    const told = { id: job.id, entryId, source, attempt, past, deliveries, firstFailedMs }
    const provenance = provenanceOf({ reason: 'attempts', error: new Error('no') }, told, member.consumer)
    return { ...same, kind, provenance }
  }
  const delayMs = kind === 'retry' || kind === 'wait' ? HOUR_MS : 0
  if (kind === 'wait' || kind === 'wait now') {
    const fields = kind === 'wait' ? ['waited-since', WAITED_SINCE] : []
    return { ...same, kind: 'wait', delayMs, why: 'waits: for a worker', fields }
  }
  return { ...same, kind: 'retry', delayMs, attempt, firstFailedMs, error: 'Error: no' }
}

/** What a cancel calls the place. */
function wordOf(place: Place): JobPlace {
  switch (place.at) {
    case 'pending':
      if (place.owner !== ':handback') return 'running'
      return place.source === 0 ? 'waiting' : 'redelivery'
    case 'waiting':
      return place.source === 0 ? 'waiting' : 'redelivery'
    case 'settled':
      return 'finished'
    case 'delayed':
      return 'unknown'
    case 'scheduled':
    case 'dead':
      return place.at
  }
}

async function expectCode(asked: Promise<unknown>, code: string): Promise<void> {
  await expect(asked).rejects.toMatchObject({ code })
}

const group = fc.constantFrom(...GROUPS)
const consumer = fc.constantFrom('a', 'b')
const shape = fc.constantFrom(0, 1, 2, 0, 1, 2, 0, 1, 2, 3)
const pick = fc.record({ at: fc.nat(60), isFit: fc.constantFrom(true, true, true, true, true, true, false) })
const anyPick = fc.record({ at: fc.nat(60), isFit: fc.boolean() })
const resent = fc.boolean()
const off = fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 0, 1, -1)
const delayMs = fc.constantFrom(0, HOUR_MS)
const maybeGroup = fc.option(group, { nil: undefined })
const schedule = fc.option(group, { nil: null })
const kind = fc.constantFrom<Fenced>(
  ...(['retry', 'retry', 'retry now', 'retry now', 'wait', 'wait now', 'dead', 'dead', 'dead', 'cancelled'] as const),
)
const verb = fc.constantFrom('redrive', 'redrive', 'redrive', 'redrive', 'purge')

const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('publish'), shape }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('publish later'), shape, delayMs: fc.constant(HOUR_MS), isResent: resent }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant('read'), group, consumer, count: fc.integer({ min: 1, max: 3 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('complete'), held: pick, resent }) },
  { weight: 12, arbitrary: fc.record({ do: fc.constant('settle'), held: pick, kind, off, resent }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('hand back'), held: pick, off }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('claim'), group, consumer, job: pick, begins: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('begin'), held: pick }) },
  { weight: 7, arbitrary: fc.record({ do: fc.constant('promote'), group: schedule, job: pick }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('promote due'), group: schedule }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('reschedule'), group: maybeGroup, job: pick, delayMs }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cancel'), group: maybeGroup, job: anyPick }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: verb, group, letters: fc.array(pick, { minLength: 1, maxLength: 3 }) }),
  },
)

const rarely: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('rewind'), group, job: pick }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('copy'), group, job: pick }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('pause'), group: maybeGroup, isOver: fc.boolean() }) },
)
const anything = fc.oneof({ weight: 12, arbitrary: steps }, { weight: 1, arbitrary: rarely })

/** Every sequence of steps leaves each job where it is expected. Returns all that happened in them. */
async function explore(parameters: { seed?: number; numRuns: number }): Promise<Set<string>> {
  const inspector = new Inspector({ redis: redis.url, logger: false })
  onEnd(() => inspector.close())
  const asking = new Asking({ redis: redis.url, logger: false })
  onEnd(() => asking.close())
  const reached = new Set<string>()
  // Without a bias towards small values, which leads to the first of everything again and again.
  const sequences = fc.noBias(fc.array(anything, { minLength: 30, maxLength: 60, size: 'max' }))
  const property = fc.asyncProperty(sequences, async (sequence) => {
    const run = new Run(inspector, reached)
    await run.start()
    for (const shape of [0, 1]) await run.do({ do: 'publish', shape })
    for (const step of sequence) await run.do(step)
    await expectAudited(asking, run.model)
  })
  // Of a failure the shortest sequence that was found in this time is told.
  await fc.assert(property, {
    endOnFailure: true,
    ...parameters,
    interruptAfterTimeLimit: 200_000,
    markInterruptAsFailure: true,
  })
  return reached
}

test('a job is in exactly one place, and in the expected one, after every step of known sequences', async () => {
  const reached = new Set<string>()
  for (const seed of [11, 14, 17]) {
    for (const what of await explore({ seed, numRuns: 20 })) reached.add(what)
  }
  // The sequences are worth something only as long as they get everywhere.
  const settling = ['completed', 'late', 'retried', 'waits', 'dead', 'cancelled', 'stale', 'done', 'handed back']
  const reading = ['read', 'read again', 'claimed', 'begun', 'lost']
  const waiting = ['promoted', 'promoted when due', 'promoted into the stream', 'rescheduled']
  const moves = ['redrive moved', 'redrive gone', 'redriven again', 'purge moved', 'purge gone']
  const places = ['delayed', 'waiting', 'redelivery', 'running', 'scheduled', 'dead', 'finished']
  const cancels = places.map((place) => `cancelled ${place}`)
  const others = ['rewound settled', 'rewound pending', 'rewound waiting', 'copied', 'paused', 'resumed']
  const all = [...settling, ...reading, ...waiting, ...moves, ...cancels, ...others]
  expect([...reached].sort()).toEqual(all.sort())
}, 240_000)

test('a job is in exactly one place, and in the expected one, after every step of any sequence', async () => {
  await explore({ numRuns: 10 })
}, 240_000)

test('an audit after any sequence of steps tells a fault that was planted, and nothing else', async () => {
  const inspector = new Inspector({ redis: redis.url, logger: false })
  const asking = new Asking({ redis: redis.url, logger: false })
  onEnd(() => inspector.close())
  onEnd(() => asking.close())
  const sequences = fc.noBias(fc.array(anything, { minLength: 5, maxLength: 40, size: 'max' }))
  const told = new Map<string, number>()
  const property = fc.asyncProperty(sequences, group, fc.nat(60), async (sequence, group, at) => {
    const run = new Run(inspector, new Set())
    await run.start()
    for (const shape of [0, 1]) await run.do({ do: 'publish', shape })
    for (const step of sequence) await run.take(step)
    const kind = await expectFaultTold({ client: redis.client, asking }, run.model, { group, at })
    if (kind !== undefined) told.set(kind, (told.get(kind) ?? 0) + 1)
  })
  await fc.assert(property, { numRuns: 60, endOnFailure: true, interruptAfterTimeLimit: 100_000 })
  expect(told.size).toBeGreaterThan(3)
}, 120_000)
