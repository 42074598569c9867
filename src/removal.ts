import { MillraceError, RedisError } from './errors.ts'
import { refuseUnknownKeys } from './options.ts'
import { Connection } from './redis/connection.ts'
import { resolveRedis, type RedisOption } from './redis/target.ts'
import { faultOf } from './redis/faults.ts'
import { checkStreamName } from './redis/keys.ts'
import { removeKeys } from './redis/removal.ts'

const REACH_MS = 5000

/**
 * Removes a stream with all that belongs to it: jobs, groups, dead letters, settings, counts. There is no way back. Stop
 * its workers and producers first: they would begin it anew.
 * @returns how many keys were removed; 0 if there was nothing of that name.
 * @throws OptionError on a wrong name; RedisError if Redis cannot be reached, or refuses, as it does when the key is not a
 * stream.
 */
export async function removeStream(options: { redis?: RedisOption }, stream: string): Promise<number> {
  refuseUnknownKeys('removeStream', options, ['redis'])
  checkStreamName(stream)
  const connection = new Connection(resolveRedis(options.redis), { role: 'removal', socketTimeoutMs: REACH_MS })
  try {
    await connection.ready(REACH_MS)
    return await removeKeys(connection.client, stream)
  } catch (error) {
    throw error instanceof MillraceError ? error : refusal(stream, error)
  } finally {
    connection.close()
  }
}

function refusal(stream: string, error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { kind } = faultOf(error)
  return kind === 'not-sent' || kind === 'unknown'
    ? new RedisError('ERR_REDIS_UNREACHABLE', `lost Redis while stream ${stream} was removed: ${error.message}`, {
        cause: error,
      })
    : new RedisError('ERR_REDIS_REFUSED', `Redis refused to remove stream ${stream}: ${error.message}`, {
        cause: error,
      })
}
