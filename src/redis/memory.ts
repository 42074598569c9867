import type { Redis } from 'ioredis'
import { withoutArguments } from './faults.ts'

/** How much of its `maxmemory` a server uses, as it judges that itself before each write. */
export interface MemorySeen {
  /** Without what Redis does not count towards `maxmemory` either: the buffers of replicas and of the append-only file. */
  readonly usedBytes: number
  /** 0 is no bound. */
  readonly maxBytes: number
  /** Undefined where the server does not say. */
  readonly evictionPolicy: string | undefined
}

/** One cheap command. @throws what the command fails with: INFO is often forbidden. */
export function readMemory(client: Redis): Promise<MemorySeen> {
  return client.info('memory').then(memorySeen, (error: unknown) => {
    throw withoutArguments(error)
  })
}

/** Pure. What is not there, or is no number, counts as 0: managed servers leave lines out. */
export function memorySeen(info: string): MemorySeen {
  const told = (name: string) => new RegExp(`^${name}:([^\\r\\n]*)`, 'm').exec(info)?.[1]
  const count = (name: string) => Number(/^\d{1,15}$/.exec(told(name) ?? '')?.[0] ?? 0)
  return {
    usedBytes: Math.max(0, count('used_memory') - count('mem_not_counted_for_evict')),
    maxBytes: count('maxmemory'),
    evictionPolicy: told('maxmemory_policy'),
  }
}
