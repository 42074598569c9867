import { GROUPS, NOW, WAITING } from './lua.ts'
import { script } from './script.ts'

/**
 * Looking, and nothing but looking: these scripts run read-only where the server has that. One step each, so that an entry
 * on its way between stream, pending list, redelivery stream and dead letters is counted in one place.
 */

/**
 * What a stream holds. At most `most` group names come back. A stream that has only jobs scheduled for later is one too,
 * though its key is still missing.
 * Returns {kind} where the key is missing ('none') or no stream, else {'stream', now, entries, oldest id or '', scheduled,
 * pause or '', groups, name, …}, scheduled = {jobs, set aside, next due ms or ''}.
 */
export const inspectStream = script(
  'inspectStream',
  `${GROUPS}${NOW}${WAITING}
  -- KEYS stream scheduled settings | ARGV most
  local stream, scheduled, most = KEYS[1], KEYS[2], tonumber(ARGV[1])
  local kind = redis.call('TYPE', stream).ok
  if kind ~= 'stream' and (kind ~= 'none' or redis.call('EXISTS', scheduled) == 0) then return {kind} end
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local found, names = groupsOf(stream)
  local shown = math.min(#names, most)
  local entries = redis.call('XLEN', stream)
  local paused = redis.call('HGET', KEYS[3], 'paused') or ''
  local first = oldest and oldest[1] or ''
  return {'stream', now(), entries, first, waiting(scheduled), paused, #names, unpack(names, 1, shown)}`,
)

/**
 * What a group has before it and in hand, on the stream and on its redelivery stream, and what waits to be tried again; who
 * works for it, and when one was last heard of; and what became of the jobs of the last hour.
 *
 * Redis's lag is taken with two checks that cost one read: nothing after the last delivered id is a lag of 0 even where
 * Redis does not know, and a lag of 0 with something after it is no knowledge. Of what was handed back at most 500 a key
 * are counted, of the workers maxWorkers are asked what they do.
 *
 * Returns {now, seen on the stream, seen on the redelivery stream, scheduled, dead, workers, {about, …}, last heard ms or
 * '', {completed, dead, late, retried, cancelled, skipped}, pause or ''}, seen = {lag or '', first unread id or '', pending, oldest pending id or
 * '', handed back}, {} where there is no such group; scheduled = {jobs, set aside, next due ms or ''}.
 */
export const inspectGroup = script(
  'inspectGroup',
  `${GROUPS}${NOW}${WAITING}
  -- KEYS stream redelivery workers info dead scheduled tally tallyBefore settings | ARGV group minute presentMs maxWorkers
  local stream, redelivery, workers, info, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
  local group, minute, presentMs, maxWorkers = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  local at = now()
  local function seen(key)
    local found = groupsOf(key)[group]
    if not found then return {} end
    -- The highest id there is has no successor, and asking for one is an error.
    local range = redis.pcall('XRANGE', key, '(' .. found['last-delivered-id'], '+', 'COUNT', 1)
    local unread = not range.err and range[1]
    local lag = found.lag or ''
    if not unread then lag = 0 elseif lag == 0 then lag = '' end
    local oldest = found.pending > 0 and redis.call('XPENDING', key, group, '-', '+', 1)[1]
    local back = redis.call('XPENDING', key, group, '-', '+', 500, ':handback')
    return {lag, unread and unread[1] or '', found.pending, oldest and oldest[1] or '', #back}
  end
  -- Scores in the future are of a server clock that has jumped back since.
  local from, to = string.format('%.0f', at - presentMs), string.format('%.0f', at + presentMs)
  local names = redis.call('ZRANGEBYSCORE', workers, from, to, 'LIMIT', 0, maxWorkers)
  local about = {}
  if #names > 0 then
    for i, told in ipairs(redis.call('HMGET', info, unpack(names))) do about[i] = told or '' end
  end
  local sums = {completed = 0, dead = 0, late = 0, retried = 0, cancelled = 0, skipped = 0}
  local function add(tally, first, last)
    local flat = redis.call('HGETALL', tally)
    for i = 1, #flat, 2 do
      local counted, outcome = flat[i]:match('^(%d+):(%a+)$')
      counted = tonumber(counted)
      if counted and sums[outcome] and counted >= first and counted <= last then
        sums[outcome] = sums[outcome] + tonumber(flat[i + 1])
      end
    end
  end
  add(KEYS[7], 0, minute)
  add(KEYS[8], minute + 1, 59)
  local present = redis.call('ZCOUNT', workers, from, to)
  local heard = (redis.call('HGET', info, ':beat') or ''):match('^%d+') or ''
  local lastHour = {sums.completed, sums.dead, sums.late, sums.retried, sums.cancelled, sums.skipped}
  local letters = redis.call('XLEN', dead)
  local paused = redis.call('HGET', KEYS[9], 'group:' .. group .. ':paused') or ''
  return {at, seen(stream), seen(redelivery), waiting(KEYS[6]), letters, present, about, heard, lastHour, paused}`,
)
