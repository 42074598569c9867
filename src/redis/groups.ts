import type { Redis } from 'ioredis'
import { withoutArguments } from './faults.ts'
import { redeliveryKey, settingsKey, workersInfoKey, workersKey } from './keys.ts'
import { groupKeys } from './removal.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { createGroup, removeGroup } from './scripts/groups.ts'
import { run } from './scripts/script.ts'
import { groupFields } from './settings.ts'

/** Making and removing groups. */

export interface GroupWanted {
  readonly startAt: 'oldest' | 'now'
  readonly leaseMs: number | undefined
  readonly maxDeliveries: number | undefined
}

export type GroupMade =
  | { readonly how: 'created'; readonly floor: string }
  | { readonly how: 'exists' }
  | { readonly how: 'type'; readonly type: string }

export async function makeGroup(client: Redis, stream: string, group: string, wanted: GroupWanted): Promise<GroupMade> {
  const keys = [stream, redeliveryKey(stream, group), settingsKey(stream)]
  const start = wanted.startAt === 'oldest' ? '0' : '$'
  const args = [group, start, groupFields(group), wanted.leaseMs ?? '', wanted.maxDeliveries ?? '']
  const [how, told = ''] = asArray(await run(client, createGroup, keys, args)).map(asText)
  if (how === 'created') return { how, floor: told }
  return how === 'exists' ? { how } : { how: 'type', type: told }
}

export type GroupRemoved =
  | { readonly how: 'removed'; readonly groupsLeft: number }
  | { readonly how: 'alive'; readonly workers: number }
  | { readonly how: 'gone' }

export async function destroyGroup(
  client: Redis,
  stream: string,
  group: string,
  { presentMs, force }: { presentMs: number; force: boolean },
): Promise<GroupRemoved> {
  const [seconds] = await client.time().catch((error: unknown) => {
    throw withoutArguments(error)
  })
  const own = groupKeys(stream, group, Number(seconds) * 1000)
  const workers = workersKey(stream, group)
  const info = workersInfoKey(stream, group)
  const others = own.filter((key) => key !== workers && key !== info)
  const keys = [stream, settingsKey(stream), workers, info, ...others]
  const args = [group, groupFields(group), presentMs, force ? 1 : 0]
  const [how, count] = asArray(await run(client, removeGroup, keys, args))
  if (how === 'removed') return { how, groupsLeft: asNumber(count) }
  return how === 'alive' ? { how, workers: asNumber(count) } : { how: 'gone' }
}

/** Whether the stream's settings tell of a group, though the group itself may be gone: a worker would make it again. */
export async function isRecorded(client: Redis, stream: string, group: string): Promise<boolean> {
  const found = await client.hexists(settingsKey(stream), `${groupFields(group)}floor`).catch((error: unknown) => {
    throw withoutArguments(error)
  })
  return found === 1
}
