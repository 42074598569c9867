import { GROUPS, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * Notes that a stream, or one of its groups, is paused. One step: until when is said by the server's time, and a group that
 * was removed a moment before must not be left with a setting. A pause that is in force already is replaced.
 *
 * HDEL comes first: under OOM a first harmless write lets the other pass, and pausing may be what helps then.
 * Returns {'paused', now, the pause, the one before or ''}, {'unknown', name, …} without the group, {'past', now} if it would
 * be over already; nothing is written in these cases.
 */
export const writePause = script(
  'writePause',
  `${GROUPS}${NOW}
  -- KEYS stream settings | ARGV field group('' = all) forMs('' = not given) untilMs('' = not given) by reason, these two as JSON
  local settings, field, group = KEYS[2], ARGV[1], ARGV[2]
  local found, names = groupsOf(KEYS[1])
  if group ~= '' and not found[group] then return {'unknown', unpack(names, 1, math.min(#names, 200))} end
  local at, untilMs = now(), tonumber(ARGV[4])
  if ARGV[3] ~= '' then untilMs = at + tonumber(ARGV[3]) end
  if untilMs and untilMs <= at then return {'past', at} end
  local last = untilMs and string.format('%.0f', untilMs) or 'null'
  local pause = '{"sinceMs":' .. string.format('%.0f', at) .. ',"untilMs":' .. last
    .. ',"by":' .. ARGV[5] .. ',"reason":' .. ARGV[6] .. '}'
  local before = redis.call('HGET', settings, field) or ''
  redis.call('HDEL', settings, '')
  redis.call('HSET', settings, field, pause)
  return {'paused', at, pause, before}`,
)

/**
 * Ends a pause. Returns {now, the pause that there was or '', further values of the fields asked for or ''}: of one step, so that what
 * is said to stay paused is so.
 */
export const endPause = script(
  'endPause',
  `${NOW}
  -- KEYS settings | ARGV field, then fields to look at
  local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
  if before ~= '' then redis.call('HDEL', KEYS[1], ARGV[1]) end
  local reply = {now(), before}
  for i = 2, #ARGV do reply[#reply + 1] = redis.call('HGET', KEYS[1], ARGV[i]) or '' end
  return reply`,
)

/** The pauses of a stream and of a group, for a worker before its first read. Returns {now, {of the stream or '', of the group or ''}}. */
export const readPauses = script(
  'readPauses',
  `${NOW}
  -- KEYS settings | ARGV fieldPrefix
  local kept = redis.call('HMGET', KEYS[1], 'paused', ARGV[1] .. 'paused')
  return {now(), {kept[1] or '', kept[2] or ''}}`,
)
