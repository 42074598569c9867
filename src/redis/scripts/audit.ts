import { GROUPS, LESS, WALK } from './lua.ts'
import { script } from './script.ts'
import { WHERE } from './whereabouts.ts'

/**
 * What an audit asks: sums over bounded pages, made inside Redis, so that no payload leaves it, and faults that are seen in
 * one step, so that no job on its way is taken for one. None of these writes but the last.
 */

/** `minuteOf(id)`: the minute of an id, since the epoch; the last one there is for ids beyond all dates. */
const MINUTE = `
  local function minuteOf(id)
    return math.floor(math.min(tonumber(id:match('^%d+')), 8639999999000000) / 60000)
  end`

/** `sizeOf(entry)`: bytes of its fields; 0 of none. */
const SIZE = `
  local function sizeOf(entry)
    local size = 0
    for f = 1, entry and #entry[2] or 0 do size = size + #entry[2][f] end
    return size
  end`

/** `entriesOf(key, from, to)`: at most 500 entries as {id, job id}, or about 1 MiB beyond one; whether there may be others behind. */
const ENTRIES = `${WALK}
  local function entriesOf(key, from, to)
    local entries = {}
    local function add(entry) entries[#entries + 1] = {entry[1], jobOf(entry)} end
    local next, refusal = walk('XRANGE', key, from, to, 500, add)
    return entries, next ~= nil, refusal
  end`

/**
 * Adds up a page of the stream, or of the group's redelivery stream, minute by minute of the job ids: how often the entries
 * are to be settled, how many are not yet delivered, how many are pending. Also the pending ids that have no entry. One step:
 * an entry that is settled meanwhile is in this page one or the other.
 *
 * An entry is to be settled once if it came after the start of the group, and once more for each time that the group was set
 * back over it, unless it was pending then: `rewound` names those. At most 500 entries or 1 000 pending ids.
 *
 * Returns {where to go on or '', entries, pending ids without an entry, {minute, settlings, waiting, pending, …}}.
 */
export const auditEntries = script(
  'auditEntries',
  `${WHERE}${MINUTE}${ENTRIES}
  -- KEYS source settings | ARGV group from to
  local source, group, from, to = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
  local found = groupsOf(source)[group]
  local delivered = found and found['last-delivered-id'] or '0-0'
  local own = 'group:' .. group .. ':'
  local kept = redis.call('HMGET', KEYS[2], own .. 'start', own .. 'rewinds', own .. 'rewound')
  local start = (kept[1] or ''):match('^%d+%-%d+$') or '0-0'
  local rewinds = {}
  for low, high in (kept[2] or ''):gmatch('%d+:(%d+%-%d+):(%d+%-%d+)') do rewinds[#rewinds + 1] = {low, high} end
  local rewound = {}
  for id in (kept[3] or ''):gmatch('%d+%-%d+') do rewound[id] = (rewound[id] or 0) + 1 end

  local entries, more, refusal = entriesOf(source, from, to)
  if refusal then return refusal end
  local last = more and entries[#entries][1] or to
  local pending = found and redis.pcall('XPENDING', source, group, from, last, 1001) or {}
  if pending.err then pending = {} end
  if #pending > 1000 then
    more, last, pending[1001] = true, pending[1000][1], nil
  end
  local isPending = {}
  for _, entry in ipairs(pending) do isPending[entry[1]] = true end

  local sums, order, seen = {}, {}, 0
  for _, entry in ipairs(entries) do
    local id = entry[1]
    if more and less(last, id) then break end
    seen = seen + 1
    local minute = minuteOf(entry[2])
    local sum = sums[minute]
    if not sum then
      sum = {minute, 0, 0, 0}
      sums[minute] = sum
      order[#order + 1] = sum
    end
    sum[2] = sum[2] + (less(start, id) and 1 or 0) - (rewound[id] or 0)
    for _, rewind in ipairs(rewinds) do
      if less(rewind[1], id) and not less(rewind[2], id) then sum[2] = sum[2] + 1 end
    end
    if isPending[id] then
      sum[4] = sum[4] + 1
      isPending[id] = nil
    elseif less(delivered, id) then
      sum[3] = sum[3] + 1
    end
  end
  local lost, flat = {}, {}
  for _, entry in ipairs(pending) do
    if isPending[entry[1]] then lost[#lost + 1] = entry[1] end
  end
  for _, sum in ipairs(order) do
    for i = 1, 4 do flat[#flat + 1] = sum[i] end
  end
  return {more and '(' .. last or '', seen, lost, flat}`,
)

/**
 * Looks for lines of the index whose place is not there: 'scheduled' without a time or without a record, 'dead' without a
 * letter, 'redelivery' whose entry is neither to be delivered nor pending. Each line and its place in one step.
 *
 * To see that an entry is there brings it into the script, so that a step ends after 1 MiB of them: what is left of it is
 * asked again by id. Returns {cursor, {id left, …}, id, what, …}, what = 'time' | 'record' | 'both' | 'letter' | 'redelivery'.
 */
export const auditIndex = script(
  'auditIndex',
  `${GROUPS}${LESS}${SIZE}
  -- KEYS redelivery scheduled scheduledJobs dead index | ARGV group cursor, then the ids that are left of the last step
  local redelivery, scheduled, jobs, dead, group = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
  local found, bytes = groupsOf(redelivery)[group], 0
  local function isThere(key, id)
    local entry = redis.call('XRANGE', key, id, id)[1]
    bytes = bytes + sizeOf(entry)
    return entry ~= nil
  end
  local function faultOf(id, place)
    if place == 'scheduled' then
      local hasTime, hasRecord = redis.call('ZSCORE', scheduled, id), redis.call('HEXISTS', jobs, id) == 1
      if not hasTime then return hasRecord and 'time' or 'both' end
      return not hasRecord and 'record'
    end
    local letter = place:match('^dead (%d+%-%d+)$')
    if letter then return not isThere(dead, letter) and 'letter' end
    local entry = place:match('^redelivery (%d+%-%d+)$')
    if not entry then return nil end
    if not isThere(redelivery, entry) then return 'redelivery' end
    if not found or less(found['last-delivered-id'], entry) then return nil end
    return #redis.call('XPENDING', redelivery, group, entry, entry, 1) == 0 and 'redelivery'
  end
  local cursor, ids, looked = ARGV[2], {unpack(ARGV, 3)}, 0
  if #ids == 0 then
    local page = redis.call('HSCAN', KEYS[5], cursor, 'COUNT', 200)
    cursor = page[1]
    for i = 1, #page[2], 2 do ids[#ids + 1] = page[2][i] end
  end
  local reply = {cursor, {}}
  while looked < #ids and bytes < 1048576 do
    looked = looked + 1
    local place = redis.call('HGET', KEYS[5], ids[looked])
    local fault = place and faultOf(ids[looked], place)
    if fault then
      reply[#reply + 1] = ids[looked]
      reply[#reply + 1] = fault
    end
  end
  reply[2] = {unpack(ids, looked + 1)}
  return reply`,
)

/** Looks for records of scheduled jobs that have no time: nothing would ever move them. Returns {cursor, id, …}. */
export const auditRecords = script(
  'auditRecords',
  `
  -- KEYS scheduled scheduledJobs | ARGV cursor
  local page = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', 100)
  local reply = {page[1]}
  for i = 1, #page[2], 2 do
    if not redis.call('ZSCORE', KEYS[1], page[2][i]) then reply[#reply + 1] = page[2][i] end
  end
  return reply`,
)

/**
 * `isNowhere(keys, outcomes, group, jobId, entryId)`: whether a job that was delivered has neither a place nor an
 * outcome. keys as for whereIs. A dead job without its letter has none either.
 */
const NOWHERE = `
  local function isNowhere(keys, outcomes, group, jobId, entryId)
    local outcome = redis.call('HGET', outcomes, jobId)
    if outcome and outcome:sub(1, 5) ~= 'dead ' then return false end
    local place = whereIs(keys, group, jobId, entryId)
    return place == 'finished' or place == 'unknown'
  end`

/**
 * Names the jobs of one minute that the group was given and that are nowhere, for groups that record outcomes: a page of the
 * stream at a time, at most 500 entries. Returns {where to go on or '', job id, entry id, …}.
 */
export const auditNames = script(
  'auditNames',
  `${WHERE}${MINUTE}${ENTRIES}${NOWHERE}
  -- KEYS stream redelivery scheduled scheduledJobs dead index settings outcomes | ARGV group from to minute
  local group, wanted = ARGV[1], tonumber(ARGV[4])
  local start = (redis.call('HGET', KEYS[7], 'group:' .. group .. ':start') or ''):match('^%d+%-%d+$') or '0-0'
  local entries, more, refusal = entriesOf(KEYS[1], ARGV[2], ARGV[3])
  if refusal then return refusal end
  local reply = {more and '(' .. entries[#entries][1] or ''}
  for _, entry in ipairs(entries) do
    if minuteOf(entry[2]) == wanted and less(start, entry[1]) and isNowhere(KEYS, KEYS[8], group, entry[2], entry[1]) then
      reply[#reply + 1] = entry[2]
      reply[#reply + 1] = entry[1]
    end
  end
  return reply`,
)

/**
 * Hands jobs that are nowhere back to their group: into its redelivery stream, from the record of a retry that lost its time,
 * else from the entry of the stream. Whether the job is nowhere is seen again in this step, so that what has been handed back,
 * or has come up elsewhere, is not handed back twice. That it was is known by a line of the index whose place is not there, a
 * time without a record, a record without a time; by nothing at all only where isNamed says that outcomes are recorded and
 * there is none.
 *
 * A redelivered job has its attempts anew, but for one that comes from its record. One that was dead is counted as redriven.
 * Nothing is written without execute. Under
 * OOM it is refused, before anything is written. At most 100 jobs; stops after 1 MiB, so the answer may be shorter.
 * Returns 'done' | 'elsewhere' | 'gone' (no record and no entry) | 'wide' for each.
 */
export const repairOrphans = script(
  'repairOrphans',
  `${WHERE}${NOWHERE}${SIZE}
  -- KEYS stream redelivery scheduled scheduledJobs dead index, then per job: outcomes tally
  -- ARGV group execute(1|0) tallyTtlMs, then per job: jobId entryId('' = not known) isNamed(1|0) minute
  local redelivery, scheduled, jobs, index, group = KEYS[2], KEYS[3], KEYS[4], KEYS[6], ARGV[1]
  local kinds = {'stream', 'stream', 'zset', 'hash', 'stream', 'hash'}
  for key, wanted in ipairs(kinds) do
    local kind = redis.call('TYPE', KEYS[key]).ok
    if kind ~= wanted and kind ~= 'none' then return redis.error_reply('WRONGTYPE the key ' .. KEYS[key] .. ' holds a ' .. kind) end
  end
  if not groupsOf(KEYS[1])[group] then return redis.error_reply('NOGROUP the stream has no group ' .. group) end
  local replaced = {id = true, attempt = true, at = true, ['first-failed'] = true, ['past-attempts'] = true}
  local time = redis.call('TIME')
  local at = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  local bytes = 0

  -- The fields of its entry, and those of others that the record holds beside it.
  local function ofRecord(raw)
    local ok, record = pcall(cmsgpack.unpack, raw)
    if not ok or type(record) ~= 'table' then return nil end
    for n = 2, #record do
      local flat = record[n]
      if type(flat) ~= 'table' or #flat == 0 or #flat % 2 == 1 then return nil end
      flat[#flat + 1] = 'at'
      flat[#flat + 1] = at
    end
    bytes = bytes + #raw
    return record[2], {unpack(record, 3)}
  end
  local function ofEntry(jobId, entryId)
    local entry = entryId ~= '' and redis.call('XRANGE', KEYS[1], entryId, entryId)[1]
    if not entry or jobOf(entry) ~= jobId then return nil end
    local flat = {}
    for i = 1, #entry[2], 2 do
      bytes = bytes + #entry[2][i] + #entry[2][i + 1]
      if not replaced[entry[2][i]] then
        flat[#flat + 1] = entry[2][i]
        flat[#flat + 1] = entry[2][i + 1]
      end
    end
    for _, field in ipairs({'id', jobId, 'at', at}) do flat[#flat + 1] = field end
    return flat
  end
  -- The entry of the redelivery stream that the index names, if it was deleted: it may be pending, but it never runs again.
  local function deletedCopyOf(jobId)
    local copy = (redis.call('HGET', index, jobId) or ''):match('^redelivery (%d+%-%d+)$')
    return copy and not redis.call('XRANGE', redelivery, copy, copy)[1] and copy
  end
  local function wasDead(jobId, outcomes)
    if (redis.call('HGET', index, jobId) or ''):sub(1, 5) == 'dead ' then return true end
    local outcome = redis.pcall('HGET', outcomes, jobId)
    return type(outcome) == 'string' and outcome:sub(1, 5) == 'dead '
  end
  local function repaired(jobId, entryId, isNamed, outcomes, tally, minute)
    local record, deleted = redis.call('HGET', jobs, jobId), deletedCopyOf(jobId)
    if redis.call('ZSCORE', scheduled, jobId) then
      if record then return 'elsewhere' end
    else
      local place, _, _, entry
      if not deleted then place, _, _, entry = whereIs(KEYS, group, jobId, entryId)
      elseif entryId == '' then place = 'unknown'
      else place, _, entry = placeIn(KEYS[1], group, entryId) end
      bytes = bytes + sizeOf(entry)
      if place ~= 'finished' and place ~= 'unknown' then return 'elsewhere' end
      local isOrphan = record or redis.call('HEXISTS', index, jobId) == 1
      if not isOrphan and not (isNamed and isNowhere(KEYS, outcomes, group, jobId, entryId)) then return 'elsewhere' end
    end
    local flat, others
    if record then flat, others = ofRecord(record) end
    flat = flat or ofEntry(jobId, entryId)
    if not flat then return 'gone' end
    if #flat > 7800 then return 'wide' end
    if ARGV[2] ~= '1' then return 'done' end
    local isRedriven = wasDead(jobId, outcomes)
    local added = redis.pcall('XADD', redelivery, '*', unpack(flat))
    if type(added) ~= 'string' then return added end
    for _, other in ipairs(others or {}) do redis.pcall('XADD', redelivery, '*', unpack(other)) end
    if deleted then redis.pcall('XACK', redelivery, group, deleted) end
    redis.call('ZREM', scheduled, jobId)
    redis.call('HDEL', jobs, jobId)
    redis.call('HSET', index, jobId, 'redelivery ' .. added)
    redis.pcall('HDEL', outcomes, jobId)
    if isRedriven and redis.pcall('HINCRBY', tally, minute .. ':redriven', 1) == 1 then
      redis.call('PEXPIRE', tally, ARGV[3])
    end
    return 'done'
  end

  local states = {}
  for arg = 4, #ARGV, 4 do
    if bytes > 1048576 then break end
    local key = 7 + (arg - 4) / 2
    local state = repaired(ARGV[arg], ARGV[arg + 1], ARGV[arg + 2] == '1', KEYS[key], KEYS[key + 1], ARGV[arg + 3])
    if type(state) == 'table' then
      if #states == 0 then return state end
      break
    end
    states[#states + 1] = state
  end
  return states`,
)

/**
 * Gives delayed publishes that have a record and no time their time again: they are due now. In one step with the look, so
 * that one that was moved meanwhile is not moved twice. Returns 'done' | 'elsewhere' for each.
 */
export const repairDelayed = script(
  'repairDelayed',
  `
  -- KEYS scheduled scheduledJobs | ARGV execute(1|0) jobId...
  local time, states = redis.call('TIME'), {}
  local at = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  for arg = 2, #ARGV do
    local id = ARGV[arg]
    if redis.call('HEXISTS', KEYS[2], id) == 0 or redis.call('ZSCORE', KEYS[1], id) then states[arg - 1] = 'elsewhere'
    else
      if ARGV[1] == '1' then redis.call('ZADD', KEYS[1], at, id) end
      states[arg - 1] = 'done'
    end
  end
  return states`,
)
