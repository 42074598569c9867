import type { Redis } from 'ioredis'
import { deadKey, settingsKey, STREAMS_KEY } from './keys.ts'
import { asText } from './replies.ts'

/** What the parts of millrace need of an ACL, and what a user has of it. Asking runs none of the commands. */

export const ROLES = ['producer', 'worker', 'exporter', 'inspector'] as const
/** A part of millrace that connects to Redis. */
export type Role = (typeof ROLES)[number]

const READING = `EXISTS HGET HGETALL HMGET MEMORY|USAGE TIME TYPE XINFO|CONSUMERS XINFO|GROUPS XINFO|STREAM XLEN XPENDING
  XRANGE XREVRANGE ZCARD ZCOUNT ZRANGE ZRANGEBYSCORE ZREVRANGE EVALSHA_RO EVAL_RO SSCAN SCARD`
const RUNNING = 'EVALSHA EVAL'

/**
 * Commands by role, with those that its scripts call: a script may do no more than the user who runs it. Without INFO a
 * producer goes on, and only its look at Redis's memory is missing; without XRANGE it does not see that the entry of a job which
 * holds a uniqueness key was deleted by hand.
 */
export const NEEDED: Readonly<Record<Role, readonly string[]>> = {
  producer:
    words(`${RUNNING} EXISTS GET HDEL HEXISTS HGET HINCRBY HSET PEXPIRE SET TIME TYPE WAIT XADD XINFO|GROUPS XLEN XPENDING
    XREAD ZADD ZCARD ZRANGE ZRANGEBYSCORE ZREM ZREVRANGE ZSCORE SADD`),
  worker:
    words(`${RUNNING} EXISTS GET HDEL HEXISTS HGET HGETALL HINCRBY HLEN HMGET HSET HSETNX MEMORY|USAGE PEXPIRE TIME TYPE XACK XADD
    XAUTOCLAIM XCLAIM XDEL XGROUP|CREATE XGROUP|DELCONSUMER XINFO|CONSUMERS XINFO|GROUPS XINFO|STREAM XLEN XPENDING XRANGE
    XREADGROUP XTRIM SADD SET ZADD ZCARD ZRANGE ZRANGEBYSCORE ZRANK ZREM
    ZREMRANGEBYSCORE ZREVRANGE ZSCORE`),
  exporter: words(READING),
  inspector:
    words(`${READING} ${RUNNING} DEL GET HDEL HEXISTS HINCRBY HKEYS HLEN HSCAN HSET HSETNX LLEN LRANGE PERSIST PEXPIRE
    RPUSH SADD SET SREM UNLINK XACK XADD XCLAIM XDEL XGROUP|CREATE XGROUP|DELCONSUMER XGROUP|DESTROY XGROUP|SETID XTRIM ZADD ZREM ZSCORE`),
}

/** What comes behind the name of a command, so that it is complete, where that is not a key alone. */
const BEHIND: Readonly<Record<string, (key: string) => readonly string[]>> = {
  EVALSHA: (key) => ['0000000000000000000000000000000000000000', '1', key],
  EVALSHA_RO: (key) => ['0000000000000000000000000000000000000000', '1', key],
  EVAL: (key) => ['return 1', '1', key],
  EVAL_RO: (key) => ['return 1', '1', key],
  TIME: () => [],
  WAIT: () => ['0', '1'],
  HGET: (key) => [key, 'f'],
  HEXISTS: (key) => [key, 'f'],
  HMGET: (key) => [key, 'f'],
  HDEL: (key) => [key, 'f'],
  HINCRBY: (key) => [key, 'f', '1'],
  HSET: (key) => [key, 'f', 'v'],
  HSETNX: (key) => [key, 'f', 'v'],
  HSCAN: (key) => [key, '0'],
  SSCAN: () => [STREAMS_KEY, '0'],
  SCARD: () => [STREAMS_KEY],
  SADD: () => [STREAMS_KEY, 'm'],
  SET: (key) => [key, 'v'],
  SREM: () => [STREAMS_KEY, 'm'],
  PEXPIRE: (key) => [key, '1'],
  RPUSH: (key) => [key, 'v'],
  LRANGE: (key) => [key, '0', '1'],
  XACK: (key) => [key, 'g', '0-1'],
  XADD: (key) => [key, '*', 'f', 'v'],
  XAUTOCLAIM: (key) => [key, 'g', 'c', '1', '0'],
  XCLAIM: (key) => [key, 'g', 'c', '1', '0-1'],
  XDEL: (key) => [key, '0-1'],
  'XGROUP|CREATE': (key) => [key, 'g', '0'],
  'XGROUP|DELCONSUMER': (key) => [key, 'g', 'c'],
  'XGROUP|DESTROY': (key) => [key, 'g'],
  'XGROUP|SETID': (key) => [key, 'g', '0'],
  'XINFO|CONSUMERS': (key) => [key, 'g'],
  XPENDING: (key) => [key, 'g'],
  XRANGE: (key) => [key, '-', '+'],
  XREVRANGE: (key) => [key, '+', '-'],
  XREAD: (key) => ['STREAMS', key, '0'],
  XREADGROUP: (key) => ['GROUP', 'g', 'c', 'STREAMS', key, '>'],
  XTRIM: (key) => [key, 'MINID', '0'],
  ZADD: (key) => [key, '1', 'm'],
  ZCOUNT: (key) => [key, '0', '1'],
  ZRANGE: (key) => [key, '0', '1'],
  ZREVRANGE: (key) => [key, '0', '1'],
  ZRANGEBYSCORE: (key) => [key, '0', '1'],
  ZRANK: (key) => [key, 'm'],
  ZREM: (key) => [key, 'm'],
  ZREMRANGEBYSCORE: (key) => [key, '0', '1'],
  ZSCORE: (key) => [key, 'm'],
}

/** A user, and by role the commands that it lacks. */
export interface PermissionsSeen {
  readonly user: string
  readonly lacks: Readonly<Record<Role, readonly string[]>>
}

/** Undefined where the server does not let us ask, or cannot answer: ACL DRYRUN came with 7.0. */
export async function readPermissions(
  client: Redis,
  stream: string,
  named?: string,
): Promise<PermissionsSeen | undefined> {
  try {
    const user = named ?? asText(await client.acl('WHOAMI'))
    const names = [...new Set(ROLES.flatMap((role) => NEEDED[role]))]
    const isAllowed = new Map<string, boolean>()
    for (const name of names) isAllowed.set(name, await mayRun(client, user, name, stream))
    const lacking = (role: Role) => NEEDED[role].filter((name) => isAllowed.get(name) === false)
    return { user, lacks: Object.fromEntries(ROLES.map((role) => [role, lacking(role)])) as Record<Role, string[]> }
  } catch {
    return undefined
  }
}

/** On the stream itself and on the keys beside it, which another pattern may cover. */
async function mayRun(client: Redis, user: string, name: string, stream: string): Promise<boolean> {
  const behind = BEHIND[name] ?? ((key: string) => [key])
  const keys = new Set([stream, settingsKey(stream), deadKey(stream, 'main')].map((key) => behind(key).join('\0')))
  for (const args of keys) {
    const words = [...name.split('|'), ...(args === '' ? [] : args.split('\0'))]
    const reply = asText(await client.call('ACL', 'DRYRUN', user, ...words))
    if (reply !== 'OK') return false
  }
  return true
}

function words(text: string): string[] {
  return text.split(/\s+/)
}
