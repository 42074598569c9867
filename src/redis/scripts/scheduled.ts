import { NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * `recordOf(raw)`: error text and flat fields of what a scheduled job will be, or nil if it is missing or not to be read; and
 * how many entries that will be: more than one where a job failed twice beside itself, of which these are the first.
 * The bytes stay in Redis: a client would bend those that are not UTF-8.
 */
export const RECORD = `
  local function recordOf(raw)
    if not raw then return nil end
    local ok, record = pcall(cmsgpack.unpack, raw)
    if not ok or type(record) ~= 'table' or type(record[1]) ~= 'string' or type(record[2]) ~= 'table' then return nil end
    local flat = record[2]
    if #flat == 0 or #flat % 2 == 1 then return nil end
    for i = 1, #flat do
      if type(flat[i]) ~= 'string' then return nil end
    end
    return record[1], flat, #record - 1
  end
  local function first(flat, name)
    for i = 1, #flat, 2 do
      if flat[i] == name then return flat[i + 1] end
    end
    return ''
  end`

/** `pageStart(set, score, id, inclusive)`: the place in a sorted set behind (or at) a member that may have gone meanwhile. */
export const PAGE_START = `
  -- Redis orders by bytes, and Lua by the server's locale, in which - may count for nothing.
  local function isBefore(a, b)
    for i = 1, math.min(#a, #b) do
      if a:byte(i) ~= b:byte(i) then return a:byte(i) < b:byte(i) end
    end
    return #a < #b
  end
  local function pageStart(set, score, id, inclusive)
    if score == '' then return 0 end
    local low = redis.call('ZCOUNT', set, '-inf', '(' .. score)
    local high = redis.call('ZCOUNT', set, '-inf', score)
    while low < high do
      local middle = math.floor((low + high) / 2)
      local at = redis.call('ZRANGE', set, middle, middle)[1]
      if isBefore(at, id) or (at == id and not inclusive) then low = middle + 1 else high = middle end
    end
    return low
  end`

/**
 * A page of what waits in one place, by due time and then by id, after a given one. The place of a cursor is searched for
 * by halving among those due at its time: thousands may be due together, or be set aside together.
 *
 * At most 500 jobs, and fewer once they hold 1 MiB. Returns {1 if there is more, row, …}, row = {id, score, bytes} of one
 * whose record is missing or not to be read, else {id, score, bytes, job name, attempt, error, entries}.
 */
export const listScheduled = script(
  'listScheduled',
  `${RECORD}${PAGE_START}
  -- KEYS scheduled scheduledJobs | ARGV score('' = from the first) id inclusive(1|0) limit
  local scheduled, jobs, score, id, inclusive = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3] == '1'
  local low = pageStart(scheduled, score, id, inclusive)
  local range = redis.call('ZRANGE', scheduled, low, low + math.min(tonumber(ARGV[4]), 500) - 1, 'WITHSCORES')
  local rows, bytes = {}, 0
  for i = 1, #range, 2 do
    if bytes > 1048576 then break end
    local raw = redis.call('HGET', jobs, range[i])
    local size = raw and #raw or 0
    local problem, flat, entries = recordOf(raw)
    if flat then
      rows[#rows + 1] = {range[i], range[i + 1], size, first(flat, 'job'), first(flat, 'attempt'), problem, entries}
    else
      rows[#rows + 1] = {range[i], range[i + 1], size}
    end
    bytes = bytes + size
  end
  return {low + #rows < redis.call('ZCARD', scheduled) and 1 or 0, unpack(rows)}`,
)

/** One scheduled job: {} if it is not there, else {row, flat fields}, row as above, without the entries. */
export const showScheduled = script(
  'showScheduled',
  `${RECORD}
  -- KEYS scheduled scheduledJobs | ARGV id
  local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if not score then return {} end
  local raw = redis.call('HGET', KEYS[2], ARGV[1])
  local problem, flat = recordOf(raw)
  local size = raw and #raw or 0
  if not flat then return {{ARGV[1], score, size}, {}} end
  return {{ARGV[1], score, size, first(flat, 'job'), first(flat, 'attempt'), problem}, flat}`,
)

/**
 * Gives a scheduled job another due time, by the server's clock; one that was set aside comes back. In one step, so that
 * what is promoted meanwhile is not scheduled again.
 * Returns {'ok', due}, {'none'} if it is not scheduled, {'broken'} if its record is missing or not to be read, {'far'} if
 * the time is too far ahead; nothing is written but for 'ok'.
 */
export const rescheduleJob = script(
  'rescheduleJob',
  `${RECORD}${NOW}
  -- KEYS scheduled scheduledJobs | ARGV id how('in'|'at') ms mostMs
  local id, at, ms = ARGV[1], now(), tonumber(ARGV[3])
  if not redis.call('ZSCORE', KEYS[1], id) then return {'none'} end
  if not recordOf(redis.call('HGET', KEYS[2], id)) then return {'broken'} end
  local due = ARGV[2] == 'in' and at + ms or math.max(at, ms)
  if due > at + tonumber(ARGV[4]) then return {'far'} end
  redis.call('ZREM', KEYS[1], '') -- under OOM a first harmless write lets the next pass
  redis.call('ZADD', KEYS[1], string.format('%.0f', due), id)
  return {'ok', string.format('%.0f', due)}`,
)
