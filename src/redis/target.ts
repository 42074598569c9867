import type { Redis, RedisOptions } from 'ioredis'
import { OptionError } from '../errors.ts'
import { refuseUnknownKeys, shown } from '../options.ts'

/**
 * Where Redis is, as users say it: checked before anything is opened, and brought to plain data. No message shows a URL or an
 * option's value: either may be or hold a password.
 */

/** What a user may give as `redis`: a URL, ioredis options, or an ioredis instance, which is only read for its options. */
export type RedisOption = string | RedisOptions | Redis

/** Where Redis is, as plain data: it can be posted to another thread. */
export interface RedisTarget {
  readonly url?: string
  readonly options: RedisOptions
}

/** Checks a `redis` option and takes from it what a connection needs. An instance is read, never used. */
export function resolveRedis(given: RedisOption | undefined): RedisTarget {
  if (given === undefined) return { options: {} }
  if (typeof given === 'string') return targetOf(given)
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new OptionError(`expected \`redis\` to be a URL, ioredis options or an ioredis instance, got ${shown(given)}`)
  }
  if ('isCluster' in given && given.isCluster) {
    throw new OptionError('expected `redis` to be a single Redis; an ioredis Cluster is not supported')
  }
  const options = 'options' in given && 'status' in given ? given.options : given
  if (options.keyPrefix) {
    throw new OptionError(
      'expected `redis` without keyPrefix: scripts and consumer groups see other keys than commands',
    )
  }
  if (options === given) refuseUnknownKeys('redis', given, [...TAKEN, ...OURS])
  // A URL in the host's place would be told, with its password, wherever it is said that Redis cannot be reached.
  if (typeof options.host === 'string' && /[/@]/.test(options.host)) {
    throw new OptionError('expected `host` of `redis` to be a host name; a URL is given as `redis` itself')
  }
  const taken = TAKEN.map((name) => [name, plainOf((options as Record<string, unknown>)[name])] as const)
  return { options: Object.fromEntries(taken.filter(([, value]) => value !== undefined)) }
}

/** What says where Redis is and how to be let in. The rest of the client's options is ours to set, see above. */
const TAKEN = [
  ...['host', 'port', 'path', 'family', 'db', 'username', 'password', 'tls', 'protocol', 'connectTimeout', 'noDelay'],
  ...['name', 'role', 'sentinels', 'sentinelUsername', 'sentinelPassword', 'sentinelTLS', 'enableTLSForSentinelMode'],
  ...['natMap', 'disableClientInfo', 'enableReadyCheck'],
]
/** Options of the client that may be there, for other uses of the same object, and mean nothing here. */
const OURS = [
  ...['retryStrategy', 'reconnectOnError', 'maxRetriesPerRequest', 'lazyConnect', 'enableOfflineQueue', 'keepAlive'],
  ...['autoResendUnfulfilledCommands', 'autoResubscribe', 'enableAutoPipelining', 'autoPipeliningIgnoredCommands'],
  ...['commandTimeout', 'socketTimeout', 'blockingTimeout', 'blockingTimeoutGrace', 'disconnectTimeout', 'readOnly'],
  ...['connectionName', 'clientInfoTag', 'keyPrefix', 'stringNumbers', 'replyMapping', 'showFriendlyErrorStack'],
  ...['sentinelRetryStrategy', 'sentinelReconnectStrategy', 'sentinelCommandTimeout', 'sentinelMaxConnections'],
  ...[
    'preferredSlaves',
    'updateSentinels',
    'failoverDetector',
    'maxLoadingRetryTime',
    'monitor',
    'scripts',
    'Connector',
  ],
]

const NO_PREFIX = 'expected `redis` without keyPrefix: scripts and consumer groups see other keys than commands'

function isDecodable(url: string): boolean {
  try {
    decodeURIComponent(url)
    return true
  } catch {
    return false
  }
}

/** The text of a URL is never shown: it may hold a password. */
function targetOf(url: string): RedisTarget {
  const socket = /^(?:unix:\/\/)?(\/[^?]*)(\?.*)?$/.exec(url)
  if (socket !== null) {
    if (socket[2] === undefined) return { options: { path: socket[1] ?? '' } }
    throw new OptionError('expected `redis` to be a socket path without options; give ioredis options as an object')
  }
  if (!/^rediss?:\/\//.test(url) || !URL.canParse(url) || !isDecodable(url)) {
    throw new OptionError('expected `redis` to be a URL that starts with redis:// or rediss://, or a socket path')
  }
  const parsed = new URL(url)
  const options: RedisOptions = {}
  for (const [name, value] of parsed.searchParams) {
    // The client would let any other option in the URL win over ours, and some of ours keep a publish from being doubled.
    if (name === 'keyPrefix') throw new OptionError(NO_PREFIX)
    if (name !== 'family' && name !== 'db') {
      throw new OptionError(`expected \`redis\` to be a URL with no options but family and db, got ${shown(name)}`)
    }
    if (!/^\d{1,5}$/.test(value)) throw new OptionError(`expected \`${name}\` in the URL of \`redis\` to be a number`)
    options[name] = Number(value)
  }
  parsed.search = ''
  return { url: parsed.href, options }
}

/** The part of an options object that is plain data. The client keeps functions in its options, which no thread can be given. */
function plainOf(value: unknown): unknown {
  if (value === null || ['string', 'number', 'boolean'].includes(typeof value)) return value
  if (value instanceof Uint8Array) return value
  if (Array.isArray(value)) return value.map(plainOf).filter((item) => item !== undefined)
  if (typeof value !== 'object') return undefined
  const plain: Record<string, unknown> = {}
  for (const [key, item] of Object.entries(value)) {
    const kept = plainOf(item)
    if (kept !== undefined) plain[key] = kept
  }
  return plain
}
