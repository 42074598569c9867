import type { Asking } from './asking.ts'
import { UnknownGroupError } from './errors.ts'
import { existingGroup } from './existing.ts'
import { MOST_WORKERS, PRESENT_MS } from './group-reading.ts'
import { HANDBACK } from './redis/keys.ts'
import { readWorkers, toldBy, type WorkersSeen } from './redis/present.ts'

/** Who works for a group, and who did and left something behind. */

/** A worker as it tells of itself with each pulse, and what Redis has under its name. What it never told is null. */
export interface WorkerRow {
  /** Its name as a consumer, new at every start. */
  readonly worker: string
  readonly host: string | null
  readonly pid: number | null
  /** Of millrace. */
  readonly version: string | null
  /** Of Node.js. */
  readonly node: string | null
  /** When it started, in ms since the epoch by the clock of its machine. */
  readonly startedMs: number | null
  /** How many handlers it can run at once, and runs. */
  readonly slots: number
  readonly running: number
  /** Jobs that it completes a second. */
  readonly perSecond: number
  /** When its last pulse came; null for one that is no longer on the list and has entries still. */
  readonly lastSeenMs: number | null
  /** How long ago that was, in ms by the clock of Redis. */
  readonly seenAgoMs: number | null
  /** Its last pulse is less than 5 s old. */
  readonly isAlive: boolean
  /** Entries that it holds, on the stream and the redelivery stream together; those of a dead worker are claimed after the lease. */
  readonly pending: number
  /** Those of them that are on the redelivery stream. */
  readonly onRedelivery: number
  /** For how long Redis has heard nothing of what it holds, in ms; null where it holds nothing. */
  readonly idleMs: number | null
}

export interface WorkersPage {
  /** Those alive first, then by name. */
  readonly workers: readonly WorkerRow[]
  /** Entries that workers gave back and that no other has taken yet. */
  readonly handedBack: number
  /** There are more than 1000 workers: these are the ones heard of last. */
  readonly more: boolean
}

/** @throws OptionError; MillraceError ERR_NOT_FOUND; UnknownGroupError; RedisError. */
export async function groupWorkers(asking: Asking, stream: string, group: string): Promise<WorkersPage> {
  return asking.run(`the workers of ${stream}`, async (client) => {
    const { groups } = await existingGroup(client, stream, group)
    const seen = await readWorkers(client, { stream, group }, MOST_WORKERS)
    if (seen === undefined) throw new UnknownGroupError({ stream, group, groups }, undefined)
    return workersPage(seen)
  })
}

/** Pure. */
export function workersPage(seen: WorkersSeen): WorkersPage {
  const { heard, onStream, onRedelivery, listed } = seen
  const names = new Set([...heard.keys(), ...onStream.keys(), ...onRedelivery.keys()])
  names.delete(HANDBACK)
  const workers = [...names].map((name) => workerRow(name, seen))
  workers.sort((a, b) => Number(b.isAlive) - Number(a.isAlive) || (a.worker < b.worker ? -1 : 1))
  const heldBack = [onStream, onRedelivery].map((held) => held.get(HANDBACK)?.entries ?? 0)
  return { workers, handedBack: sum(heldBack), more: listed > heard.size }
}

function workerRow(worker: string, { nowMs, heard, onStream, onRedelivery, about }: WorkersSeen): WorkerRow {
  const told = toldBy(about.get(worker))
  const lastSeenMs = heard.get(worker) ?? null
  const held = [onStream.get(worker), onRedelivery.get(worker)].filter((part) => part !== undefined)
  const isAlive = lastSeenMs !== null && Math.abs(nowMs - lastSeenMs) <= PRESENT_MS
  return {
    worker,
    host: textOf(told['host']),
    pid: countOf(told['pid']),
    version: textOf(told['version']),
    node: textOf(told['node']),
    startedMs: countOf(told['startedMs']),
    slots: countOf(told['slots']) ?? 0,
    running: isAlive ? (countOf(told['running']) ?? 0) : 0,
    perSecond: isAlive ? Math.round((countOf(told['perSecond']) ?? 0) * 10) / 10 : 0,
    lastSeenMs,
    seenAgoMs: lastSeenMs === null ? null : Math.max(0, nowMs - lastSeenMs),
    isAlive,
    pending: sum(held.map(({ entries }) => entries)),
    onRedelivery: onRedelivery.get(worker)?.entries ?? 0,
    idleMs: held.length === 0 ? null : Math.min(...held.map(({ idleMs }) => idleMs)),
  }
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' && value.length <= 300 ? value : null
}

function countOf(value: unknown): number | null {
  return typeof value === 'number' && value >= 0 && value < 1e15 ? value : null
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0)
}
