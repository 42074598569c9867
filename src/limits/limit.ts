import { createHash } from 'node:crypto'
import { messageOf, OptionError } from '../errors.ts'
import type { Job } from '../job.ts'
import { didYouMean, refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { GRACE_MOST_US } from '../redis/scripts/limit.ts'
import { compileKey, type KeyFound } from './key-template.ts'

/** What a limit is: its options, and what is made of them once. */

export interface RateOptions {
  /** How many jobs may begin in `perMs`. */
  jobs: number
  /** The time that `jobs` is counted in, in ms. @default 1000 */
  perMs?: number
  /** How many may begin at once after a quiet time. @default what the rate allows in 100 ms, and one job at least */
  burst?: number
}

export interface LimitOptions {
  /** With a name it holds for all groups and streams that use the name together. @default none: it is the group's own */
  name?: string
  /** The jobs that it holds for. @default all jobs of the worker */
  jobs?: readonly string[]
  /** What the jobs are told apart by, each key with the whole limit: `stripe:{data.account}`, or a function. @default none */
  key?: string | ((data: never, job: Job) => string)
  /** How many jobs may begin in a time. @default no limit */
  rate?: RateOptions
  /** How many jobs one counts as in `rate`: a number, or a function of its data. @default 1 */
  cost?: number | ((data: never, job: Job) => number)
  /** How many jobs may run at once, on all workers together. @default no limit */
  concurrency?: number
}

/** A rate in what the script reckons with. */
export interface Rate {
  /** From one job to the next, in µs: that is a fraction for most rates. */
  readonly intervalUs: number
  readonly burst: number
}

export interface Limit {
  /** What it is called in logs, metrics and beside a job that waits for it. */
  readonly label: string
  readonly name: string | undefined
  /** What tells it from other limits of its group, where it has no name. */
  readonly id: string
  readonly covers: (job: string) => boolean
  /** Whether all jobs of the worker wait where one does: there is nothing to tell them apart by. */
  readonly holdsAll: boolean
  readonly keyOf: ((data: unknown, job: Job) => KeyFound) | undefined
  readonly rate: Rate | undefined
  readonly costOf: (data: unknown, job: Job) => { readonly cost: number } | { readonly fault: string }
  readonly concurrency: number | undefined
}

/** Below it timers are too coarse for a job to begin in time. */
export const GRACE_LEAST_US = 10_000
/** What a job may take from the throughput so that it need not begin at its very slot. */
const GRACE_SHARE = 0.01
/** A default burst is what comes in this time. */
const BURST_MS = 100
const LONGEST_MS = 31 * 24 * 3_600_000
const KNOWN = ['name', 'jobs', 'key', 'rate', 'cost', 'concurrency']

/** @throws OptionError with the expected form. */
export function resolveLimits(given: unknown, jobs: readonly string[]): readonly Limit[] {
  if (given === undefined) return []
  if (!Array.isArray(given)) throw new OptionError(`expected \`limits\` to be a list of limits, got ${shown(given)}`)
  const limits = given.map((one: unknown, at) => resolveLimit(`limits[${at}]`, one as LimitOptions, jobs))
  for (const [at, { name, id }] of limits.entries()) {
    const same = limits.findIndex((other) => other.id === id && other.name === name)
    if (same === at) continue
    const hint = name === undefined ? 'give one a `name`, or put rate and concurrency into one' : 'they share its name'
    throw new OptionError(`expected each of \`limits\` once, and limits[${same}] and limits[${at}] are one: ${hint}`)
  }
  return limits
}

function resolveLimit(where: string, given: LimitOptions, handled: readonly string[]): Limit {
  refuseUnknownKeys(where, given, KNOWN)
  const jobs = jobsOf(`${where}.jobs`, given.jobs, handled)
  const name = nameOf(`${where}.name`, given.name)
  if (given.rate === undefined && given.concurrency === undefined) {
    throw new OptionError(`expected \`${where}\` to have a \`rate\` or a \`concurrency\`, got neither`)
  }
  if (given.cost !== undefined && given.rate === undefined) {
    throw new OptionError(`expected \`${where}.cost\` beside a \`rate\`: without one nothing is counted`)
  }
  const rate = given.rate === undefined ? undefined : resolveRate(`${where}.rate`, given.rate, given.cost)
  const key = given.key === undefined ? undefined : keyOf(`${where}.key`, given.key)
  return {
    label: name ?? labelOf(jobs, given.key),
    name,
    id: idOf(name, jobs, given.key),
    covers: jobs === undefined ? () => true : (job) => jobs.includes(job),
    holdsAll: key === undefined && handled.every((job) => jobs?.includes(job) ?? true),
    keyOf: key,
    rate,
    costOf: costOf(`${where}.cost`, given.cost ?? 1, rate?.burst ?? Infinity),
    concurrency:
      given.concurrency === undefined
        ? undefined
        : wholeNumber(`${where}.concurrency`, given.concurrency, { or: 1, max: 1_000_000 }),
  }
}

function resolveRate(where: string, given: RateOptions, cost: LimitOptions['cost']): Rate {
  refuseUnknownKeys(where, given, ['jobs', 'perMs', 'burst'])
  if (given.jobs === undefined) throw new OptionError(`expected \`${where}.jobs\` to be a positive integer, got none`)
  const jobs = wholeNumber(`${where}.jobs`, given.jobs, { or: 1, max: 1_000_000 })
  const perMs = wholeNumber(`${where}.perMs`, given.perMs, { or: 1000, max: LONGEST_MS })
  const constant = typeof cost === 'number' ? cost : 1
  // Of a function nobody knows what it will say: all that the rate allows.
  const usual = typeof cost === 'function' ? jobs : Math.ceil(Math.max(constant, (jobs * BURST_MS) / perMs))
  const burst = wholeNumber(`${where}.burst`, given.burst, { or: usual, max: 1_000_000 })
  const intervalUs = (perMs * 1000) / jobs
  if ((burst * intervalUs) / 1000 > 12 * LONGEST_MS) {
    throw new OptionError(`expected \`${where}.burst\` to be what the rate allows within a year, got ${burst}`)
  }
  return { intervalUs, burst }
}

/**
 * How late after its slot a job of this cost may begin, in µs, with the limit kept in any window; see scripts/limit.ts. No more than the
 * burst leaves beside the job is free of cost. A job that is nearly all of a burst gets a little of its own time where that is enough
 * for a timer, and nothing where it is not: it would cost throughput and help nobody.
 */
export function graceUs({ intervalUs, burst }: Rate, cost: number): number {
  const [burstUs, costUs] = [burst * intervalUs, cost * intervalUs]
  const shareUs = costUs * GRACE_SHARE
  const ownUs = shareUs < GRACE_LEAST_US ? 0 : shareUs
  return Math.min(GRACE_MOST_US, Math.max(ownUs, Math.min(burstUs / 2, burstUs - costUs)))
}

function jobsOf(where: string, given: unknown, handled: readonly string[]): readonly string[] | undefined {
  if (given === undefined) return undefined
  if (!Array.isArray(given) || given.length === 0) {
    throw new OptionError(`expected \`${where}\` to be a list of job names, got ${shown(given)}`)
  }
  const jobs = given as readonly unknown[]
  for (const job of jobs) {
    if (typeof job === 'string' && handled.includes(job)) continue
    const meant = typeof job === 'string' ? didYouMean(job, handled) : undefined
    const hint = meant === undefined ? `handled: ${handled.slice(0, 20).join(', ')}` : `did you mean ${meant}?`
    throw new OptionError(`expected \`${where}\` to name jobs that have a handler, got ${shown(job)} (${hint})`)
  }
  return jobs as readonly string[]
}

function nameOf(where: string, given: unknown): string | undefined {
  if (given === undefined) return undefined
  if (typeof given === 'string' && /^[A-Za-z0-9_.-]{1,64}$/.test(given)) return given
  throw new OptionError(
    `expected \`${where}\` to be 1 to 64 letters, digits and _ . - , got ${shown(given)}`,
    'ERR_NAME',
  )
}

/** Of what is sure to be the same in all workers of a group: a rate that is changed stays the same limit. */
function idOf(name: string | undefined, jobs: readonly string[] | undefined, key: LimitOptions['key']): string {
  if (name !== undefined) return name
  const text = JSON.stringify([jobs?.toSorted() ?? '', typeof key === 'function' ? true : (key ?? '')])
  return createHash('sha256').update(text).digest('hex').slice(0, 12)
}

function labelOf(jobs: readonly string[] | undefined, key: LimitOptions['key']): string {
  const [first = 'all', ...others] = jobs ?? []
  const of = others.length === 0 ? first : `${first}+${others.length}`
  if (key === undefined) return of
  return `${of} by ${typeof key === 'function' ? 'function' : key.slice(0, 60)}`
}

function keyOf(where: string, key: NonNullable<LimitOptions['key']>): NonNullable<Limit['keyOf']> {
  if (typeof key === 'string') return compileKey(where, key)
  if (typeof key !== 'function') {
    throw new OptionError(`expected \`${where}\` to be a text or a function, got ${shown(key)}`)
  }
  return (data, job) => {
    const told = contained(() => key(data as never, job))
    if ('fault' in told) return { fault: `\`${where}\` threw: ${told.fault}` }
    const text = told.value
    if (typeof text === 'string' && text !== '') return { key: text }
    return {
      fault: `\`${where}\` is to return a text, and returned ${typeof text === 'string' ? 'an empty one' : kindOf(text)}`,
    }
  }
}

function costOf(where: string, cost: NonNullable<LimitOptions['cost']>, burst: number): Limit['costOf'] {
  if (typeof cost === 'function') {
    return (data, job) => {
      const told = contained(() => cost(data as never, job))
      if ('fault' in told) return { fault: `\`${where}\` threw: ${told.fault}` }
      const counted = told.value
      const isCost = typeof counted === 'number' && counted > 0 && counted <= burst
      if (isCost) return { cost: counted }
      const got = typeof counted === 'number' ? String(counted) : kindOf(counted)
      return {
        fault: `\`${where}\` is to return a number above 0 and up to the burst of ${burst}, and returned ${got}`,
      }
    }
  }
  if (typeof cost !== 'number' || !(cost > 0) || !Number.isFinite(cost)) {
    throw new OptionError(`expected \`${where}\` to be a number above 0, or a function, got ${shown(cost)}`)
  }
  if (cost > burst) {
    throw new OptionError(
      `expected \`${where}\` to be at most the burst of ${burst}, or no job could ever begin, got ${cost}`,
    )
  }
  const always = { cost }
  return () => always
}

function contained<Value>(ask: () => Value): { readonly value: Value } | { readonly fault: string } {
  try {
    return { value: ask() }
  } catch (error) {
    return { fault: messageOf(error) }
  }
}

/** What was returned, without showing it: it may be of the payload. */
function kindOf(value: unknown): string {
  return value === null || value === undefined ? String(value) : `a value of type ${typeof value}`
}
