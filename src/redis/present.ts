import type { Redis } from 'ioredis'
import { look } from './inspection.ts'
import { redeliveryKey, workersInfoKey, workersKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { listAlive, listWorkers } from './scripts/workers.ts'

/** Who works for a group, and what each of them holds. */

export interface Held {
  readonly entries: number
  /** Since when its consumer has not asked Redis for anything. */
  readonly idleMs: number
}

export interface WorkersSeen {
  readonly nowMs: number
  /** Names on the list, of which only the latest may have come back. */
  readonly listed: number
  /** Last pulses, by name. */
  readonly heard: ReadonlyMap<string, number>
  /** What consumers hold, by name, on the stream and on the redelivery stream. */
  readonly onStream: ReadonlyMap<string, Held>
  readonly onRedelivery: ReadonlyMap<string, Held>
  /** What each says of itself; empty where it has not said anything. */
  readonly about: ReadonlyMap<string, string>
}

/** Undefined if the group is gone. */
export async function readWorkers(
  client: Redis,
  { stream, group }: { readonly stream: string; readonly group: string },
  most: number,
): Promise<WorkersSeen | undefined> {
  const keys = [stream, redeliveryKey(stream, group), workersKey(stream, group), workersInfoKey(stream, group)]
  const reply = asArray(await look(client, listWorkers, keys, [group, most]))
  if (reply.length === 0) return undefined
  const [nowMs, listed, heard, onStream, onRedelivery, about] = reply
  return {
    nowMs: asNumber(nowMs),
    listed: asNumber(listed),
    heard: new Map(inRows(heard, 2).map(([name, ms]) => [asText(name), asNumber(ms)])),
    onStream: heldBy(onStream),
    onRedelivery: heldBy(onRedelivery),
    about: new Map(inRows(about, 2).map(([name, told]) => [asText(name), asText(told)])),
  }
}

/** What each worker says of itself that was heard of less than `presentMs` ago, by name; at most `most` of them, up to 500. */
export async function readAlive(
  client: Redis,
  { stream, group }: { readonly stream: string; readonly group: string },
  { presentMs, most }: { readonly presentMs: number; readonly most: number },
): Promise<ReadonlyMap<string, string>> {
  const keys = [workersKey(stream, group), workersInfoKey(stream, group)]
  const reply = await look(client, listAlive, keys, [presentMs, most])
  return new Map(inRows(reply, 2).map(([name, told]) => [asText(name), asText(told)]))
}

/** What a worker says of itself. Any process could have written it: what is no such thing is taken for nothing. */
export function toldBy(about: string | undefined): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(about ?? '')
    if (typeof parsed === 'object' && parsed !== null) return parsed as Record<string, unknown>
  } catch {
    // nothing said yet, or not by one of ours
  }
  return {}
}

function heldBy(reply: unknown): Map<string, Held> {
  return new Map(
    inRows(reply, 3).map(([name, entries, idleMs]) => [
      asText(name),
      { entries: asNumber(entries), idleMs: asNumber(idleMs) },
    ]),
  )
}

function inRows(reply: unknown, width: number): unknown[][] {
  const flat = asArray(reply)
  const rows: unknown[][] = []
  for (let at = 0; at + width <= flat.length; at += width) rows.push(flat.slice(at, at + width))
  return rows
}
