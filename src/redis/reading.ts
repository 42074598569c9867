import type { Redis } from 'ioredis'
import { withoutArguments } from './faults.ts'
import { look } from './inspection.ts'
import { asArray, asNumber, asOptionalNumber, asText, type RawEntry } from './replies.ts'
import { readHistory, readPage, readPageBack } from './scripts/read.ts'
import { readByIds } from './scripts/replay.ts'
import type { Argument, Script } from './scripts/script.ts'

/** Reading the history of a stream: page by page, each of them one bounded step for Redis. */

/** Entries of one page, at most. */
export const READ_PAGE = 500

/** A range of entries, as XRANGE takes its ends: an id, `(` and an id for what is behind or before it, `-`, `+`. */
export interface EntryRange {
  readonly from: string
  readonly to: string
}

export interface EntryPage<Entry> {
  readonly entries: readonly Entry[]
  /** Where the next page begins; undefined if this one is the last. */
  readonly next: string | undefined
}

/** An entry with its bytes as they were written: for whoever writes them again. */
export interface BytesEntry {
  readonly id: string
  readonly fields: readonly Buffer[]
}

export async function readEntries(
  client: Redis,
  key: string,
  { from, to, most = READ_PAGE }: EntryRange & { most?: number },
): Promise<EntryPage<RawEntry>> {
  return asPage(await look(client, readPage, [key], [from, to, most]))
}

/** The same, newest first: `from` is the higher end of the range, and `to` the lower one. */
export async function readEntriesBack(
  client: Redis,
  key: string,
  { from, to, most = READ_PAGE }: EntryRange & { most?: number },
): Promise<EntryPage<RawEntry>> {
  return asPage(await look(client, readPageBack, [key], [from, to, most]))
}

function asPage(reply: unknown): EntryPage<RawEntry> {
  const [next, ...rows] = asArray(reply)
  const entries = rows.map((row) => {
    const [id, fields] = row as [string, string[]]
    return { id, fields }
  })
  return { entries, next: asText(next) || undefined }
}

/** The same, its fields as bytes: a text would bend those that are not UTF-8. */
export async function readEntryBytes(
  client: Redis,
  key: string,
  { from, to, most = READ_PAGE }: EntryRange & { most?: number },
): Promise<EntryPage<BytesEntry>> {
  const [next, ...rows] = asArray(await lookForBytes(client, readPage, key, [from, to, most]))
  const entries = rows.map((row) => {
    const [id, fields] = row as [Buffer, Buffer[]]
    return { id: id.toString('latin1'), fields }
  })
  return { entries, next: (next as Buffer).toString('latin1') || undefined }
}

/** The entries of these ids, in their order; without fields where one is not there. */
export async function readEntriesOf(client: Redis, key: string, ids: readonly string[]): Promise<BytesEntry[]> {
  const found: BytesEntry[] = []
  while (found.length < ids.length) {
    const asked = ids.slice(found.length, found.length + READ_PAGE)
    for (const row of asArray(await lookForBytes(client, readByIds, key, asked))) {
      const [id, fields = []] = row as [Buffer, Buffer[]?]
      found.push({ id: id.toString('latin1'), fields })
    }
  }
  return found
}

async function lookForBytes(client: Redis, script: Script, key: string, args: readonly Argument[]): Promise<unknown> {
  try {
    return await client.callBuffer('EVALSHA', script.sha, 1, key, ...args)
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw withoutArguments(error)
    return client.callBuffer('EVAL', script.lua, 1, key, ...args).catch((again: unknown) => {
      throw withoutArguments(again)
    })
  }
}

/** How far the history of a stream goes. */
export interface History {
  readonly nowMs: number
  readonly entries: number
  /** Undefined where the stream is empty. */
  readonly oldestId: string | undefined
  readonly newestId: string | undefined
  /** Whether entries were removed: then what is older than the oldest was there once. Undefined before Redis 7.0. */
  readonly hasLost: boolean | undefined
  /** The last id that the stream has given. */
  readonly lastId: string
}

/** @returns the type of the key where that is no stream, `none` where there is none. */
export async function readHistoryOf(client: Redis, stream: string): Promise<History | { readonly type: string }> {
  const reply = asArray(await look(client, readHistory, [stream], []))
  const [kind, nowMs, entries, oldestId, newestId, removed, lastId] = reply
  if (kind !== 'stream') return { type: asText(kind) }
  const hasRemoved = asOptionalNumber(removed)
  return {
    nowMs: asNumber(nowMs),
    entries: asNumber(entries),
    oldestId: asText(oldestId) || undefined,
    newestId: asText(newestId) || undefined,
    hasLost: hasRemoved === undefined ? undefined : hasRemoved === 1,
    lastId: asText(lastId),
  }
}
