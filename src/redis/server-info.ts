import type { Redis } from 'ioredis'
import { withoutArguments } from './faults.ts'

/** What a server tells of itself in INFO, and, where we may ask, in CONFIG. Undefined is: it does not say. */
export interface ServerFacts {
  readonly software: 'redis' | 'valkey'
  /** Its own version, not the one of Redis that it is compatible with. */
  readonly version: string
  readonly mode: string
  readonly role: string
  readonly usedMemoryBytes: number
  /** 0 is no bound. */
  readonly maxMemoryBytes: number
  readonly evictionPolicy: string | undefined
  readonly isAofOn: boolean
  /** Whether the last write to the append-only file, and its last rewrite, succeeded. */
  readonly isAofOk: boolean
  /** Whether the last snapshot succeeded. */
  readonly isSnapshotOk: boolean
  /** CONFIG `save`; empty is no snapshots. */
  readonly savePoints: string | undefined
  /** CONFIG `appendfsync`. */
  readonly fsync: string | undefined
  /** Replicas that are connected; undefined on a replica. */
  readonly replicas: number | undefined
}

/** Two cheap commands; CONFIG is often forbidden, and then what it would tell is unknown. */
export async function readServer(client: Redis): Promise<ServerFacts> {
  const info = await client.info().catch((error: unknown) => {
    throw withoutArguments(error)
  })
  const [savePoints, fsync] = await Promise.all([setting(client, 'save'), setting(client, 'appendfsync')])
  return serverFacts(info, { savePoints, fsync })
}

export function serverFacts(
  info: string,
  config: { savePoints: string | undefined; fsync: string | undefined },
): ServerFacts {
  const told = new Map(info.split('\r\n').map((line): [string, string] => splitOnce(line)))
  const number = (name: string) => Number(told.get(name) ?? 0) || 0
  const isOk = (name: string) => (told.get(name) ?? 'ok') === 'ok'
  const role = told.get('role') ?? 'unknown'
  const valkey = told.get('valkey_version')
  return {
    software: valkey === undefined ? 'redis' : 'valkey',
    version: valkey ?? told.get('redis_version') ?? 'unknown',
    mode: told.get('redis_mode') ?? told.get('server_mode') ?? 'unknown',
    role,
    usedMemoryBytes: number('used_memory'),
    maxMemoryBytes: number('maxmemory'),
    evictionPolicy: told.get('maxmemory_policy'),
    isAofOn: told.get('aof_enabled') === '1',
    isAofOk: isOk('aof_last_write_status') && isOk('aof_last_bgrewrite_status'),
    isSnapshotOk: isOk('rdb_last_bgsave_status'),
    ...config,
    replicas: role === 'master' ? number('connected_slaves') : undefined,
  }
}

async function setting(client: Redis, name: string): Promise<string | undefined> {
  // Refused by managed servers and by an ACL; whatever else is wrong shows in the next command.
  const reply: unknown = await client.config('GET', name).catch(() => undefined)
  const value: unknown = Array.isArray(reply) ? reply[1] : undefined
  return typeof value === 'string' ? value : undefined
}

function splitOnce(line: string): [string, string] {
  const colon = line.indexOf(':')
  return colon < 0 ? [line, ''] : [line.slice(0, colon), line.slice(colon + 1)]
}
