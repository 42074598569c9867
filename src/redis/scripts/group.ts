import { KEY_NAMES } from '../keys.ts'
import { AT_END, FLOOR, GROUPS, NOW, QUIET, SILENT } from './lua.ts'
import { script } from './script.ts'

/**
 * Makes sure that the group and its redelivery stream exist, and brings the group's settings, which the first worker wrote
 * and every later one follows. One step, so that two workers that start together cannot both think they are the first.
 *
 * A stream's first group starts at its oldest entry; a further one needs startAt; one that is recorded but gone is made
 * again at its floor. 'again' is a worker that has lost its group: without a floor it goes on where the group was removed,
 * else with all that there is, since what was published while the group was gone is not to be missed. Returns {how, leaseMs, maxDeliveries, floor, the server's time} with how = 'joined' | 'created' | 'restored', or
 * {'unknown', name, …}; nothing is written in that case.
 */
export const joinGroup = script(
  'joinGroup',
  `${FLOOR}${NOW}${AT_END}${KEY_NAMES}
  -- KEYS stream redelivery settings info | ARGV group startAt('oldest' | 'now' | 'again' | '') leaseMs maxDeliveries
  local stream, redelivery, settings, info = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
  redis.call('XACK', stream, ARGV[1], '0-1') -- under OOM a first harmless write lets the others pass
  local group, startAt = ARGV[1], ARGV[2]
  local floorField = 'group:' .. group .. ':floor'
  local order = ofGroup(baseOf(settings), group, 'order')
  local found, names = groupsOf(stream)
  local how = 'joined'
  if not found[group] then
    local recorded = redis.call('HGET', settings, floorField)
    local start = recorded
    how = (start or startAt == 'again') and 'restored' or 'created'
    if not start then
      local removed = startAt == 'again' and redis.call('HGET', settings, 'removed:' .. group)
      if removed then start = removed
      elseif startAt == 'now' then start = '$'
      elseif startAt ~= '' or #names == 0 then start = '0'
      else return {'unknown', unpack(names, 1, math.min(#names, 200))} end
    end
    if start == '$' then createAtEnd(stream, group) else redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM') end
    local begins = groupsOf(stream)[group]['last-delivered-id']
    redis.call('HSET', settings, floorField, begins)
    -- What it reads anew is lined up anew.
    redis.pcall('HDEL', order, ':stream')
    -- What the stream had before is not the group's, and was not counted for one of that name that was there before.
    if not recorded then redis.call('HSET', settings, 'group:' .. group .. ':start', begins) end
    redis.call('HDEL', settings, 'removed:' .. group)
  elseif redis.call('HEXISTS', settings, floorField) == 0 and redis.call('EXISTS', info) == 0 then
    -- Made by hand, and no worker has been here yet: what it has passed by now was never counted.
    local ok, begins = pcall(floorOf, stream, group)
    if ok and begins then redis.call('HSET', settings, floorField, begins, 'group:' .. group .. ':start', begins) end
  end
  if not groupsOf(redelivery)[group] then
    redis.call('XGROUP', 'CREATE', redelivery, group, '0', 'MKSTREAM')
    redis.pcall('HDEL', order, ':again')
  end
  -- From here on the group counts as heard of: an outage before its first pulse must be seen as one.
  redis.call('HSETNX', info, ':beat', now())
  local wanted = {leaseMs = ARGV[3], maxDeliveries = ARGV[4]}
  local kept = {}
  for name, value in pairs(wanted) do
    local field = 'group:' .. group .. ':' .. name
    kept[name] = redis.call('HGET', settings, field)
    if not kept[name] then
      redis.call('HSET', settings, field, value)
      kept[name] = value
    end
  end
  local floor, time = redis.call('HGET', settings, floorField) or '', string.format('%.0f', now())
  return {how, kept.leaseMs, kept.maxDeliveries, floor, time}`,
)

/**
 * A worker's sign of life, once an interval: writes its presence and brings back what it must know. Returns
 * {now, leaseMs, maxDeliveries, claimDue, {next due time or '', that of a recurring schedule or ''}, cancel cursor, {pause of the stream or '', of the group or ''},
 * cancelled member, …}. claimDue is 1 if the claim
 * tick is free and there is something to look for: an entry handed back, a consumer gone silent, or the sweep that is due
 * once a lease. Cheap, so that idle groups cost nothing more than this.
 *
 * Cancels come once each: the caller sends the cursor that it was given with the last ones. At most 500 a pulse.
 */
export const pulse = script(
  'pulse',
  `${FLOOR}${NOW}${QUIET}${SILENT}
  -- KEYS stream redelivery settings workers info delayed retries cancelled cronDue
  -- ARGV group me intervalMs leaseMs about cancelCursor
  local stream, redelivery, settings, workers, info = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
  local group, me, intervalMs, leaseMs = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
  local at = now()
  redis.call('XACK', stream, group, '0-1') -- under OOM a first harmless write lets the others pass
  redis.call('ZADD', workers, at, me)
  redis.call('HSET', info, me, ARGV[5])
  local function handedBack(source)
    local range = redis.call('XPENDING', source, group, '-', '+', 1, ':handback')
    return #range > 0
  end
  local function anythingToClaim()
    local claimed = tonumber(redis.call('HGET', info, ':tick') or 0)
    if at - claimed < intervalMs and at >= claimed then return false end
    local swept = tonumber(redis.call('HGET', info, ':sweep') or 0)
    if at - swept >= leaseMs or at < swept then return true end
    return handedBack(redelivery) or handedBack(stream)
      or hasSilent(redelivery, group, me, leaseMs) or hasSilent(stream, group, me, leaseMs)
  end
  local quiet = isQuiet(info, at, intervalMs, leaseMs)
  local own = 'group:' .. group .. ':'
  local kept = redis.call('HMGET', settings, own .. 'leaseMs', own .. 'maxDeliveries', 'paused', own .. 'paused')
  local function sooner(key, nextDue)
    local due = redis.call('ZRANGE', KEYS[key], 0, 0, 'WITHSCORES')[2]
    if not due or due == 'inf' or (nextDue ~= '' and tonumber(due) >= tonumber(nextDue)) then return nextDue end
    return string.format('%.0f', math.max(0, tonumber(due)))
  end
  local nextDue = {sooner(7, sooner(6, '')), sooner(9, '')}
  local claimDue = not quiet and anythingToClaim() and 1 or 0
  local reply = {at, kept[1] or '', kept[2] or '', claimDue, nextDue, ARGV[6], {kept[3] or '', kept[4] or ''}}
  local cancels = redis.call('ZRANGEBYSCORE', KEYS[8], '(' .. ARGV[6], '+inf', 'WITHSCORES', 'LIMIT', 0, 500)
  for i = 1, #cancels, 2 do
    reply[#reply + 1] = cancels[i]
    reply[6] = cancels[i + 1]
  end
  return reply`,
)

/**
 * Takes a worker off the list and deletes its consumers if they hold nothing: XGROUP DELCONSUMER drops what a consumer
 * has pending, so the look and the deletion are one step. Returns how many entries it still holds.
 */
export const leaveGroup = script(
  'leaveGroup',
  `${GROUPS}
  -- KEYS stream redelivery workers info | ARGV group consumer
  local group, consumer = ARGV[1], ARGV[2]
  local held = 0
  for source = 1, 2 do
    if groupsOf(KEYS[source])[group] then
      local pending = #redis.call('XPENDING', KEYS[source], group, '-', '+', 500, consumer)
      if pending == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[source], group, consumer) end
      held = held + pending
    end
  end
  redis.call('ZREM', KEYS[3], consumer)
  redis.call('HDEL', KEYS[4], consumer)
  return held`,
)

/**
 * Deletes consumers that nobody has heard of for forgetMs and that hold nothing; look and deletion in one step, as above.
 * At most 100 a call. Returns how many were deleted.
 */
export const forgetConsumers = script(
  'forgetConsumers',
  `${FLOOR}${NOW}
  -- KEYS stream redelivery workers info | ARGV group forgetMs
  local group, forgetMs = ARGV[1], tonumber(ARGV[2])
  local at, gone = now(), 0
  for source = 1, 2 do
    for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[source], group)) do
      local consumer = fields(flat)
      local seen = tonumber(redis.call('ZSCORE', KEYS[3], consumer.name) or 0)
      if gone < 100 and consumer.pending == 0 and consumer.name ~= ':handback'
        and consumer.idle >= forgetMs and at - seen >= forgetMs then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[source], group, consumer.name)
        gone = gone + 1
      end
    end
  end
  local stale = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', at - forgetMs, 'LIMIT', 0, 100)
  for _, name in ipairs(stale) do
    redis.call('ZREM', KEYS[3], name)
    redis.call('HDEL', KEYS[4], name)
  end
  return gone`,
)
