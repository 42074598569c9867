import { Asking } from './asking.ts'
import { refuseUnknownKeys } from './options.ts'
import { checkStreamName } from './redis/keys.ts'
import { removeKeys } from './redis/removal.ts'
import type { RedisOption } from './redis/target.ts'

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
  const asking = new Asking({ ...options, logger: false })
  try {
    return await asking.run(`the removal of stream ${stream}`, (client) => removeKeys(client, stream))
  } finally {
    asking.close()
  }
}
