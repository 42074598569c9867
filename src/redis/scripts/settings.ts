import { GROUPS } from './lua.ts'
import { script } from './script.ts'

/**
 * Writes settings of a stream and of its groups, all or none: a group that is not there is found before anything is written,
 * in the same step, so that no setting is left for a group that was removed a moment before.
 *
 * HDEL comes first: under OOM a first harmless write lets the others pass, and letting entries go earlier is what helps then.
 * Returns {} or {'unknown', group, name, …}.
 */
export const writeSettings = script(
  'writeSettings',
  `${GROUPS}
  -- KEYS stream settings | ARGV groups, their names, then per setting: field value ('' = none)
  local settings, groups = KEYS[2], tonumber(ARGV[1])
  local found, names = groupsOf(KEYS[1])
  for at = 2, groups + 1 do
    if not found[ARGV[at]] then return {'unknown', ARGV[at], unpack(names, 1, math.min(#names, 200))} end
  end
  redis.call('HDEL', settings, '')
  for at = groups + 2, #ARGV, 2 do
    if ARGV[at + 1] == '' then redis.call('HDEL', settings, ARGV[at])
    else redis.call('HSET', settings, ARGV[at], ARGV[at + 1]) end
  end
  return {}`,
)
