import type { Redis } from 'ioredis'
import { timeOf } from './entry-id.ts'
import { cronDueKey, deadKey, holdsKey, scheduledKey } from './keys.ts'
import { asArray, asText } from './replies.ts'
import { HOLD_MS } from './replays.ts'
import { readServer, type ServerFacts } from './server-info.ts'

/** What a doctor asks beside what an inspector asks. Nothing writes; what is forbidden is undefined. */

export interface ServerSeen {
  /** Undefined where INFO is forbidden. */
  readonly facts: ServerFacts | undefined
  /** CONFIG `min-replicas-to-write`. */
  readonly minReplicas: number | undefined
  /** How far the clock of the server is ahead of ours, and how much of that may be the way of the question, in ms. */
  readonly clock: { readonly aheadMs: number; readonly withinMs: number } | undefined
}

export async function readServerSeen(client: Redis): Promise<ServerSeen> {
  const facts = await readServer(client).catch(forbidden)
  const minReplicas = await client.config('GET', 'min-replicas-to-write').catch(forbidden)
  const told = Array.isArray(minReplicas) ? asText(minReplicas[1]) : ''
  return { facts, minReplicas: told === '' ? undefined : Number(told), clock: await clockOf(client) }
}

async function clockOf(client: Redis): Promise<ServerSeen['clock']> {
  const sentMs = Date.now()
  const reply = await client.time().catch(forbidden)
  if (reply === undefined) return undefined
  const receivedMs = Date.now()
  const [seconds, micros] = reply
  const serverMs = Number(seconds) * 1000 + Number(micros) / 1000
  return { aheadMs: serverMs - (sentMs + receivedMs) / 2, withinMs: Math.max(0, receivedMs - sentMs) / 2 + 1 }
}

/** The time in the last id that a stream has given, also of an entry that is gone since; undefined where it has given none. */
export async function readLastIdMs(client: Redis, stream: string): Promise<number | undefined> {
  const reply: unknown = await client.xinfo('STREAM', stream).catch(forbidden)
  const flat = asArray(reply ?? [])
  const id = asText(flat[flat.indexOf('last-generated-id') + 1] ?? '')
  return /^\d+-\d+$/.test(id) && id !== '0-0' ? timeOf(id) : undefined
}

/** Whether delayed publishes, or recurring schedules, wait to be published to a stream. */
export async function isToBePublished(client: Redis, stream: string): Promise<boolean> {
  return ((await client.exists(scheduledKey(stream), cronDueKey(stream)).catch(forbidden)) ?? 0) > 0
}

/** When the oldest dead letter of a group died. */
export async function readOldestDeadMs(client: Redis, stream: string, group: string): Promise<number | undefined> {
  const rows = await client.xrange(deadKey(stream, group), '-', '+', 'COUNT', 1).catch(forbidden)
  const id = rows?.[0]?.[0]
  return id === undefined ? undefined : timeOf(id)
}

/** A replay that keeps retention from what it has not read. */
export interface HoldSeen {
  /** The stream that it brings jobs into. */
  readonly target: string
  readonly id: string
  /** When it was last renewed, which one that runs does all the time. */
  readonly renewedMs: number
  readonly untilMs: number
}

export async function readHolds(client: Redis, stream: string): Promise<HoldSeen[]> {
  const fields = (await client.hgetall(holdsKey(stream)).catch(forbidden)) ?? {}
  return Object.entries(fields).flatMap(([name, value]) => {
    const [, target, id] = /^(\S+) (\S+)$/.exec(name) ?? []
    const untilMs = Number(/^\d+-\d+ (\d+)$/.exec(value)?.[1])
    if (target === undefined || id === undefined || !Number.isFinite(untilMs)) return []
    return [{ target, id, untilMs, renewedMs: untilMs - HOLD_MS }]
  })
}

/** A refusal is an answer: it does not say. A connection that went is none. */
function forbidden(error: unknown): undefined {
  const isAnswer = error instanceof Error && error.name === 'ReplyError'
  if (!isAnswer || !/^(NOPERM|ERR|WRONGTYPE)/.test(error.message)) throw error
  return undefined
}
