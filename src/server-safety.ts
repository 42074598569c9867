import type { ServerFacts } from './redis/server-info.ts'

/** What a server may do to jobs that it has taken. `no_replicas` is a choice; the others lose jobs or refuse them. */
export const SAFETY_CHECKS = ['eviction', 'no_persistence', 'aof_error', 'bgsave_error', 'no_replicas'] as const
export type SafetyCheck = (typeof SAFETY_CHECKS)[number]

/**
 * By check, whether the server is unsafe in that way; undefined where it does not say.
 * Pure. An eviction policy of a server without `maxmemory` never evicts, but the bound is one CONFIG SET away: it counts.
 */
export function unsafeChecks(facts: ServerFacts): Readonly<Record<SafetyCheck, boolean | undefined>> {
  const { evictionPolicy, isAofOn, isAofOk, isSnapshotOk, savePoints, replicas } = facts
  return {
    eviction: evictionPolicy === undefined ? undefined : evictionPolicy !== 'noeviction',
    no_persistence: isAofOn ? false : savePoints === undefined ? undefined : savePoints === '',
    aof_error: isAofOn ? !isAofOk : false,
    bgsave_error: !isSnapshotOk,
    no_replicas: replicas === undefined ? undefined : replicas === 0,
  }
}
