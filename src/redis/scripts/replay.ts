import { GROUPS, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * Replays. What one is of and how far it is stands in a hash under the tag of the stream that it brings jobs into: copies
 * and cursor move in one step, whoever runs it.
 */

/**
 * Takes a replay up: its hash and its place in the list. Once, also if the answer is lost and it is sent again: the token
 * tells a second try from another replay that has chosen the same id.
 *
 * Returns 1, or 0 if the id is taken.
 */
export const createReplay = script(
  'createReplay',
  `${NOW}
  -- KEYS replays replay ids | ARGV id token field value...
  local replays, replay, ids, token = KEYS[1], KEYS[2], KEYS[3], ARGV[2]
  local kind = redis.call('TYPE', replays).ok
  if kind ~= 'zset' and kind ~= 'none' then return redis.error_reply('WRONGTYPE the list of replays is a ' .. kind) end
  if redis.call('EXISTS', replay) == 1 then return redis.call('HGET', replay, 'token') == token and 1 or 0 end
  local at = string.format('%.0f', now())
  redis.call('HSET', replay, 'token', token, 'createdMs', at, 'updatedMs', at, unpack(ARGV, 3))
  redis.call('ZADD', replays, at, ARGV[1])
  redis.call('PERSIST', ids)
  return 1`,
)

/**
 * Notes entries that a replay will be of, before it is taken up: at most 500 a call, behind the `given` ones that are there
 * already, so that a batch whose answer was lost is not noted twice. They end by themselves if nothing comes of the replay.
 */
export const noteReplayIds = script(
  'noteReplayIds',
  `
  -- KEYS ids | ARGV given ttlMs id...
  local length, given = redis.call('LLEN', KEYS[1]), tonumber(ARGV[1])
  if length == given then
    redis.call('RPUSH', KEYS[1], unpack(ARGV, 3))
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return 1
  end
  if length == given + #ARGV - 2 then return 1 end
  return redis.error_reply('ERR the entries of the replay changed while they were noted')`,
)

/**
 * Brings copies into the target and moves the cursor over what they are copies of, in one step: killed before it, none of it
 * happened; after it, the next to go on begins behind them. The cursor must stand where the caller has read from, so that
 * the same call sent again, or two runners at once, copy each entry once.
 *
 * Into a group: to its redelivery stream under an id that is made here (its sequence has sixteen digits and begins with a 2,
 * so that it meets no other), with its place in the index, and counted by that id's minute. The caller names the tallies of
 * three hours, since only here it is known which hour it is. Into a stream: appended like any publish.
 *
 * Each entry ends with id, '', replay-of, what it is a copy of (into a stream only the latter two); the id is put in here.
 * All is checked before the first write, which is the counter of ids or the first append: under OOM that fails, and nothing
 * was written. At most 500 entries and about 1 MiB; with none only the cursor moves. The last step lets go what the replay
 * held, for nobody may come to do so after it; that of another stream is in another slot, and ends by itself.
 *
 * Returns {'ok', now} | {'moved'} if the cursor stands elsewhere or it is not to run now | {'missing'} without its hash |
 * {'gone'} without the group | {'clock', now} if none of the tallies is of this hour.
 */
export const copyReplay = script(
  'copyReplay',
  `${GROUPS}${NOW}
  -- KEYS replay ids target [stream index settings tally tally tally holds]
  -- ARGV cursor group firstHour tallyTtlMs copies nextCursor count field value..., then per entry: width field value...
  local replay, target, group, copies = KEYS[1], KEYS[3], ARGV[2], tonumber(ARGV[5])
  local stored = redis.call('HMGET', replay, 'cursor', 'status')
  if not stored[1] then return {'missing'} end
  if stored[1] ~= ARGV[1] or stored[2] ~= 'running' then return {'moved'} end
  local at = now()
  local hour = math.floor(at / 3600000) - tonumber(ARGV[3]) + 1
  local kinds = {[target] = 'stream'}
  if group ~= '' then
    if not groupsOf(KEYS[4])[group] then return {'gone'} end
    if hour < 1 or hour > 3 then return {'clock', at} end
    kinds[KEYS[5]], kinds[KEYS[6]], kinds[KEYS[6 + hour]] = 'hash', 'hash', 'hash'
  end
  for key, wanted in pairs(kinds) do
    local kind = redis.call('TYPE', key).ok
    if kind ~= wanted and kind ~= 'none' then
      return redis.error_reply('WRONGTYPE the key ' .. key .. ' holds a ' .. kind .. ', not a ' .. wanted)
    end
  end
  if copies > 0 and redis.call('EXISTS', target) == 1 then
    local last = fields(redis.call('XINFO', 'STREAM', target))['last-generated-id']
    if last:find('^18446744073709551615%-184467440737095') then
      return redis.error_reply('ERR the entry ids of ' .. target .. ' are used up')
    end
  end
  local ms, number, places = string.format('%.0f', at), 0, {}
  if group ~= '' and copies > 0 then
    number = 2000000000000000 + redis.call('HINCRBY', KEYS[6], 'copied-seq', copies) - copies
  end
  local given = tonumber(ARGV[7])
  local arg = 8 + given
  for copy = 1, copies do
    local last = arg + tonumber(ARGV[arg])
    if group == '' then
      redis.call('XADD', target, '*', unpack(ARGV, arg + 1, last))
    else
      local id = ms .. '-' .. string.format('%.0f', number + copy)
      ARGV[last - 2] = id
      places[#places + 1] = id
      places[#places + 1] = 'redelivery ' .. redis.call('XADD', target, '*', unpack(ARGV, arg + 1, last))
    end
    arg = last + 1
  end
  if #places > 0 then
    redis.call('HSET', KEYS[5], unpack(places))
    local minute = math.floor(at / 60000) % 60
    redis.pcall('HINCRBY', KEYS[6 + hour], minute .. ':replayed', copies)
    redis.call('PEXPIRE', KEYS[6 + hour], ARGV[4])
  end
  redis.call('HINCRBY', replay, 'copied', copies)
  redis.call('HSET', replay, 'cursor', ARGV[6], 'updatedMs', ms, unpack(ARGV, 8, 7 + given))
  if redis.call('HGET', replay, 'status') == 'done' then
    redis.call('HSET', replay, 'finishedMs', ms)
    redis.call('DEL', KEYS[2])
    if group ~= '' then redis.pcall('HDEL', KEYS[10], KEYS[4] .. ' ' .. replay:match('[^:]*$')) end
  end
  return {'ok', at}`,
)

/**
 * Pauses, resumes or cancels a replay; what is over stays as it is. Under OOM a harmless write comes first: pausing must get
 * through then. Returns the status after it, '' if there is no such replay.
 */
export const turnReplay = script(
  'turnReplay',
  `${NOW}
  -- KEYS replay ids | ARGV wanted(running|paused|cancelled) perSecond('' = as it is)
  local replay, wanted = KEYS[1], ARGV[1]
  local status = redis.call('HGET', replay, 'status')
  if not status then return '' end
  if status ~= 'running' and status ~= 'paused' then return status end
  redis.call('HDEL', replay, '')
  local at = string.format('%.0f', now())
  redis.call('HSET', replay, 'status', wanted, 'updatedMs', at)
  if ARGV[2] ~= '' then redis.call('HSET', replay, 'perSecond', ARGV[2]) end
  if wanted == 'cancelled' then
    redis.call('HSET', replay, 'finishedMs', at)
    redis.call('DEL', KEYS[2])
  end
  return wanted`,
)

/** Forgets a replay that is over. Returns 1 if it was. */
export const forgetReplay = script(
  'forgetReplay',
  `
  -- KEYS replays replay ids | ARGV id
  local status = redis.call('HGET', KEYS[2], 'status')
  if status == 'running' or status == 'paused' then return 0 end
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2], KEYS[3])
  return 1`,
)

/**
 * Notes, in the slot of the stream that is read, up to where a replay has read it: retention keeps what is behind that. Holds
 * whose time is over are removed on the way. The first write is a deletion, which passes under OOM.
 *
 * Returns {'held', oldest id or ''} or {'full'} if as many others hold the stream.
 */
export const holdHistory = script(
  'holdHistory',
  `${NOW}
  -- KEYS stream holds | ARGV name cursor ttlMs most
  local holds, name, at = KEYS[2], ARGV[1], now()
  local flat, others = redis.call('HGETALL', holds), 0
  redis.call('HDEL', holds, '')
  for i = 1, #flat, 2 do
    local untilMs = tonumber(flat[i + 1]:match(' (%d+)$') or 0)
    if flat[i] ~= name then
      if untilMs <= at then redis.call('HDEL', holds, flat[i]) else others = others + 1 end
    end
  end
  if others >= tonumber(ARGV[4]) then return {'full'} end
  redis.call('HSET', holds, name, ARGV[2] .. ' ' .. string.format('%.0f', at + ARGV[3]))
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  return {'held', oldest and oldest[1] or ''}`,
)

/**
 * Entries by id: at most 500, or what is over 1 MiB, so that the answer may be shorter than the question. Returns {id, fields}
 * for each, {id} for one that is not there.
 */
export const readByIds = script(
  'readByIds',
  `
  -- KEYS stream | ARGV id...
  local rows, bytes = {}, 0
  for _, id in ipairs(ARGV) do
    if bytes > 1048576 then break end
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    for i = 1, entry and #entry[2] or 0 do bytes = bytes + #entry[2][i] end
    rows[#rows + 1] = entry or {id}
  end
  return rows`,
)
