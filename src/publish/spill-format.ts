import { isUtf8 } from 'node:buffer'
import type { Item } from '../redis/publishing.ts'

/**
 * A spill file, as lines of JSON:
 *
 *     {"millrace":"spill","version":1,"id":…,"host":…,"pid":…,"at":…,"streams":[…]}      what it is
 *     {"state":0,"batch":{…,"items":n}}       a batch that was on its way, then a line for each of its items
 *     {"state":0,"sequence":{…,"jobs":n}}     one for each stream, then a line for each of its jobs that waited, in order
 *     {"state":0,"job":{"stream":…,"fields":[…],"ref":…}}
 *     {"end":true,"jobs":n}
 *
 * Batches come first: they are the part that is worth most if the writer is killed in the middle, since nobody else knows
 * their identity. Fields are those that the producer would have sent, so that nothing is encoded twice. What a recovery must
 * not forget is written over the line that it is about, at the same length: that needs no room on a disk that is full, and
 * there is no line of its own that could be cut.
 */

const VERSION = 1

/** What begins every spill file, and no other. */
export const SPILL_MARK = '{"millrace":"spill",'

/** More streams than that are not named in the header. */
const MOST_NAMED = 100

/** Longest header: a hundred stream names, and the rest. */
export const HEADER_BYTES = 64 * 1024

export interface SpillHeader {
  /** The file's identity, and that of the sequences that its jobs are published under. */
  readonly id: string
  readonly host: string
  readonly pid: number
  /** When it was begun, ISO 8601. */
  readonly at: string
  /** What it holds jobs of; undefined if that are too many to say. */
  readonly streams: readonly string[] | undefined
}

/**
 * How far the recovery of a line is. A job is `refused` if Redis will not have it however often it is asked. A sequence has
 * `begun` when Redis was seen to know it: from there on a missing key means that Redis has forgotten it.
 */
export type LineState = (typeof STATES)[number]

/** By the digit that stands for them. */
const STATES = ['todo', 'begun', 'done', 'refused', 'unknown'] as const

/** Where a line has its state. */
export const STATE_OFFSET = '{"state":'.length

/** A job as it is spilled. */
export interface SpilledItem extends Item {
  /** What its publish resolved with; undefined of an awaited job, which is only here because its batch was on its way. */
  readonly ref?: string | undefined
  readonly priority?: number | undefined
  /** When it was published, in ms since the epoch. */
  readonly publishedAt?: number | undefined
}

/** A job that waited: it was in no batch, or in one that was certainly not executed. */
export interface SpilledJob extends SpilledItem {
  readonly stream: string
  readonly ref: string
}

/** A batch that was on its way, whole, with the identity that it was sent under last. At most one of each producer id. */
export interface SpilledBatch {
  readonly stream: string
  readonly producerId: string
  readonly seq: number
  readonly items: readonly SpilledItem[]
}

/** The jobs of one stream that waited, and how they are published: one sequence, whose mark in Redis counts lines. */
export interface SpillSequence {
  readonly stream: string
  /** Lines of it. */
  readonly jobs: number
  /** Counts the times that Redis forgot the sequence, and another one was begun with the line `from`. */
  readonly generation: number
  readonly from: number
  /** Who took it over last. */
  readonly owner: string
}

/** What an owner that there is none of is written as; as long as every other. */
export const NO_OWNER = '00000000'

export type SpillLine =
  | { readonly kind: 'batch'; readonly state: LineState; readonly batch: BatchLine }
  | { readonly kind: 'sequence'; readonly state: LineState; readonly sequence: SpillSequence }
  | { readonly kind: 'job'; readonly state: LineState; readonly stream: string; readonly item: SpilledItem }
  | { readonly kind: 'end' }
  /** Cut by a crash, or not written by us. */
  | { readonly kind: 'broken' }

export interface BatchLine {
  readonly stream: string
  readonly producerId: string
  readonly seq: number
  /** Lines of it. */
  readonly items: number
}

export function headerText({ streams, ...rest }: SpillHeader): string {
  const named = streams === undefined || streams.length > MOST_NAMED ? {} : { streams }
  return JSON.stringify({ millrace: 'spill', version: VERSION, ...rest, ...named })
}

/** Undefined if it is no header; a version that is not ours to read is told as one. */
export function headerOf(text: string): SpillHeader | { readonly version: unknown } | undefined {
  const given = text.startsWith(SPILL_MARK) ? parsed(text) : undefined
  if (given === undefined) return undefined
  if (given['version'] !== VERSION) return { version: given['version'] }
  const { id, host, pid, at, streams } = given
  if (!isText(id) || !/^[\w-]{1,100}$/.test(id) || !isText(host) || !isCount(pid) || !isText(at)) return undefined
  if (streams !== undefined && !(Array.isArray(streams) && streams.every(isText))) return undefined
  return { id, host, pid, at, streams }
}

export function batchText({ stream, producerId, seq, items }: BatchLine): string {
  return JSON.stringify({ state: 0, batch: { stream, producerId, seq, items } })
}

/** Always as long as it was: it is written over what it was before. */
export function sequenceText(state: LineState, { stream, jobs, generation, from, owner }: SpillSequence): string {
  const sequence = { generation: padded(generation, 4), from: padded(from, 12), owner, stream, jobs }
  return JSON.stringify({ state: STATES.indexOf(state), sequence })
}

export function jobText(
  stream: string,
  { fields, due, token, unique, ref, priority, publishedAt }: SpilledItem,
): string {
  return JSON.stringify({ state: 0, job: { stream, fields, due, token, unique, ref, priority, publishedAt } })
}

export function endText(jobs: number): string {
  return JSON.stringify({ end: true, jobs })
}

/** The digit of a state. */
export function stateText(state: LineState): string {
  return String(STATES.indexOf(state))
}

/** Whether a line that is whole is a job's, without reading it. */
export function isJobLine(bytes: Buffer): boolean {
  return bytes.toString('latin1', STATE_OFFSET + 1, STATE_OFFSET + 8) === ',"job":'
}

/** Never throws: whatever is in a file. */
export function lineOf(bytes: Buffer): SpillLine {
  const given = isUtf8(bytes) ? parsed(bytes.toString()) : undefined
  if (given === undefined) return { kind: 'broken' }
  if (given['end'] === true) return { kind: 'end' }
  const state = STATES[given['state'] as number]
  const { batch, sequence, job } = given
  if (state === undefined) return { kind: 'broken' }
  return batchOf(state, batch) ?? sequenceOf(state, sequence) ?? jobOf(state, job) ?? { kind: 'broken' }
}

function batchOf(state: LineState, given: unknown): SpillLine | undefined {
  if (!isObject(given)) return undefined
  const { stream, producerId, seq, items } = given
  if (!isText(stream) || !isText(producerId) || !isCount(seq) || !isCount(items)) return undefined
  return { kind: 'batch', state, batch: { stream, producerId, seq, items } }
}

function sequenceOf(state: LineState, given: unknown): SpillLine | undefined {
  if (!isObject(given)) return undefined
  const { stream, jobs, owner } = given
  const [generation, from] = [Number(given['generation']), Number(given['from'])]
  if (!isText(stream) || !isText(owner) || !isCount(jobs) || !isCount(generation) || !isCount(from)) return undefined
  return { kind: 'sequence', state, sequence: { stream, jobs, generation, from, owner } }
}

function jobOf(state: LineState, given: unknown): SpillLine | undefined {
  if (!isObject(given)) return undefined
  const { stream, fields, due, token, unique, ref, priority, publishedAt } = given
  // What Redis would refuse for its shape would be refused for good, in the middle of a batch.
  if (!isText(stream) || !Array.isArray(fields) || fields.length < 2 || fields.length % 2 === 1) return undefined
  if (!fields.every(isText) || !isDue(due)) return undefined
  if (!isToken(token) || !isUnique(unique) || !(isText(ref) || ref === undefined)) return undefined
  const notes = { priority: numberOf(priority), publishedAt: numberOf(publishedAt) }
  return { kind: 'job', state, stream, item: { fields, due, token, unique, ref, ...notes } }
}

function isDue(given: unknown): given is Item['due'] {
  return given === undefined || (isText(given) && /^\+?\d{1,16}$/.test(given))
}

function isToken(given: unknown): given is Item['token'] {
  return given === undefined || (isObject(given) && isText(given['text']) && isCount(given['ttlMs']))
}

function isUnique(given: unknown): given is Item['unique'] {
  if (given === undefined) return true
  if (!isObject(given) || !isText(given['key']) || !isText(given['group'])) return false
  const { until, mode, ttlMs, maxWaitMs } = given
  return UNTIL.has(until) && MODES.has(mode) && isCount(ttlMs) && isCount(maxWaitMs) && (until !== 'ttl' || ttlMs > 0)
}

const UNTIL = new Set<unknown>(['settled', 'started', 'ttl'])
const MODES = new Set<unknown>(['reject', 'replace', 'debounce'])

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const given: unknown = JSON.parse(text)
    return isObject(given) ? given : undefined
  } catch {
    return undefined
  }
}

function isObject(given: unknown): given is Record<string, unknown> {
  return typeof given === 'object' && given !== null && !Array.isArray(given)
}

function isText(given: unknown): given is string {
  return typeof given === 'string'
}

function isCount(given: unknown): given is number {
  return Number.isSafeInteger(given) && (given as number) >= 0
}

function numberOf(given: unknown): number | undefined {
  return typeof given === 'number' ? given : undefined
}

function padded(count: number, digits: number): string {
  return String(count).padStart(digits, '0')
}
