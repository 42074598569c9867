import { ROW } from './dead.ts'
import { HOLDER, KEY_IN, PLACE } from './holder.ts'
import { NOW } from './lua.ts'
import { RECORD } from './scheduled.ts'
import { script } from './script.ts'
import { WHERE } from './whereabouts.ts'

/**
 * Telling where a job is and why. These scripts only read. What is told comes as name, value, …; a name that is missing says
 * that there is nothing of it.
 */

/**
 * `described(flat, wantsPayload)`: what an entry says of its job: {job name, bytes of the payload, replay-of, attempt, cron} and
 * the payload itself where it is asked for and below 1 MiB.
 */
const DESCRIBED = `
  local function described(flat, from, wantsPayload)
    local named = {}
    for i = from, #flat, 2 do
      if named[flat[i]] == nil then named[flat[i]] = flat[i + 1] end
    end
    local data = named.data
    local told = {(named.job or ''):sub(1, 400), data and #data or -1, (named['replay-of'] or ''):sub(1, 600),
      (named.attempt or ''):sub(1, 20), (named.cron or ''):sub(1, 200)}
    if wantsPayload and data and #data <= 1048576 then told[6] = data end
    return told
  end`

/**
 * A job as its stream has it: how far the history goes, its entry, or its record while it is a delayed publish, and the names
 * of the groups. `unique` is its uniqueness key and the job that holds it now, '' for none. `carries` is the job that the entry of this id carries, where that is another.
 */
export const explainJob = script(
  'explainJob',
  `${WHERE}${NOW}${RECORD}${DESCRIBED}${HOLDER}${KEY_IN}
  -- KEYS stream scheduled scheduledJobs cancelled settings | ARGV jobId entryId mostGroups wantsPayload(1|0)
  local stream, jobId, entryId, wantsPayload = KEYS[1], ARGV[1], ARGV[2], ARGV[4] == '1'
  local kind = redis.call('TYPE', stream).ok
  if kind ~= 'stream' and kind ~= 'none' then return {'kind', kind} end
  local told = {'kind', kind, 'now', now()}
  local function put(name, value)
    told[#told + 1] = name
    told[#told + 1] = value
  end
  local settings = KEYS[5]${PLACE}
  local function putUnique(flat)
    local key = keyIn(flat)
    if not key then return end
    local kept = redis.pcall('GET', uniqueIn(base, key))
    local holder = type(kept) == 'string' and holderOf(kept)
    put('unique', {key:sub(1, 1024), holder and placeOf(holder) and holder.job or ''})
  end
  if kind == 'stream' then
    local info = fields(redis.call('XINFO', 'STREAM', stream))
    local oldest, newest, added = info['first-entry'], info['last-entry'], info['entries-added']
    put('entries', info.length)
    put('lastId', info['last-generated-id'])
    if oldest then put('oldestId', oldest[1]) end
    if newest then put('newestId', newest[1]) end
    if added then put('hasLost', added > info.length and 1 or 0) end
    local entry = entryId ~= '' and entryAt(stream, entryId)
    if entry and jobOf(entry) == jobId then
      put('job', described(entry[2], 1, wantsPayload))
      putUnique(entry[2])
    elseif entry then put('carries', jobOf(entry)) end
    local _, names = groupsOf(stream)
    put('groupCount', #names)
    put('groups', {unpack(names, 1, math.min(#names, tonumber(ARGV[3])))})
  else
    put('scheduled', redis.call('ZCARD', KEYS[2]))
  end
  local due = redis.call('ZSCORE', KEYS[2], jobId)
  if due then
    put('due', due)
    local problem, flat = recordOf(redis.call('HGET', KEYS[3], jobId))
    if flat then
      put('problem', problem:sub(1, 2000))
      put('job', described(flat, 1, wantsPayload))
      putUnique(flat)
    end
  end
  local cancelledAt = redis.call('ZSCORE', KEYS[4], jobId)
  if cancelledAt then put('cancelled', cancelledAt) end
  local set = redis.call('HMGET', KEYS[5], 'paused', 'copied-seq')
  if set[1] then put('paused', set[1]) end
  if set[2] then put('copiedSeq', set[2]) end
  return told`,
)

/**
 * Which job an id means that is no job's: the id of a dead letter, or of an entry in a redelivery stream. An id that a group
 * has in its index is a job's. Returns {} or {'dead' | 'redelivery', group, job id}.
 */
export const findAlias = script(
  'findAlias',
  `${WHERE}
  -- KEYS per group: dead redelivery index | ARGV id group...
  local id = ARGV[1]
  for n = 1, #KEYS, 3 do
    if redis.call('HEXISTS', KEYS[n + 2], id) == 1 then return {} end
  end
  for n = 1, #KEYS, 3 do
    local group, letter = ARGV[1 + (n + 2) / 3], entryAt(KEYS[n], id)
    for i = 1, letter and #letter[2] or 0, 2 do
      if letter[2][i] == 'dead-id' then return {'dead', group, letter[2][i + 1]} end
      if letter[2][i] == 'dead-fields' then break end
    end
    local copy = entryAt(KEYS[n + 1], id)
    if copy and jobOf(copy) ~= id then return {'redelivery', group, jobOf(copy)} end
  end
  return {}`,
)

/**
 * `aheadOf(key, id, last)`: how many entries lie between the last one that a group was given and this one: how many were
 * counted, and whether these are all. Counts from the entry backwards; groups of one stream share what was looked at. At
 * most 500 entries and about 1 MiB a call, however many groups are asked about, in small steps: how large the next entries
 * are is not known before they are in the script.
 */
const AHEAD = `
  local left, bytesLeft, walks = 500, 1048576, {}
  local function walkOn(walk, key)
    local count = math.max(1, math.min(#walk.ids == 0 and 1 or 16, left, math.floor(bytesLeft / walk.largest)))
    local rows = redis.pcall('XREVRANGE', key, walk.to, '-', 'COUNT', count)
    -- The lowest id there is has nothing before it, and asking for it is an error.
    if rows.err then
      walk.ended = true
      return
    end
    for _, entry in ipairs(rows) do
      local size = 0
      for i = 1, #entry[2] do size = size + #entry[2][i] end
      bytesLeft, walk.largest, walk.to = bytesLeft - size, math.max(walk.largest, size), '(' .. entry[1]
      walk.ids[#walk.ids + 1] = entry[1]
    end
    left, walk.ended = left - #rows, #rows < count
  end
  local function aheadOf(key, id, last)
    local walk = walks[key] or {ids = {}, to = '(' .. id, largest = 64, ended = false}
    walks[key] = walk
    while true do
      local low, high = 0, #walk.ids
      if high > 0 and not less(last, walk.ids[high]) then
        -- What was looked at goes back to what the group was given: halving finds where that begins.
        while high - low > 1 do
          local middle = math.floor((low + high) / 2)
          if less(last, walk.ids[middle]) then low = middle else high = middle end
        end
        return low, 1
      end
      if walk.ended then return high, 1 end
      if left <= 0 or bytesLeft <= 0 then return high, 0 end
      walkOn(walk, key)
    end
  end`

/**
 * Where a few groups have a job, with the evidence for it. One step each, so that a job on its way is in one place.
 * Returns a list of name, value, … for each group; `there` is missing for one that is gone.
 */
export const explainGroups = script(
  'explainGroups',
  `${WHERE}${NOW}${RECORD}${ROW}${DESCRIBED}${AHEAD}
  -- KEYS stream settings cancelled, per group: redelivery scheduled scheduledJobs dead index workers info tally outcomes notes
  -- ARGV jobId entryId minute presentMs maxWorkers wantsPayload(1|0) group...
  local stream, settings, cancelled = KEYS[1], KEYS[2], KEYS[3]
  local jobId, entryId, minute, presentMs = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
  local maxWorkers, wantsPayload, at = ARGV[5], ARGV[6] == '1', now()
  -- What one group has been told holds for the others: nothing changes within this step.
  local askGroups, seenGroups, askEntry, seenEntries = groupsOf, {}, entryAt, {}
  groupsOf = function(key)
    seenGroups[key] = seenGroups[key] or {askGroups(key)}
    return unpack(seenGroups[key])
  end
  entryAt = function(key, id)
    local name = key .. ' ' .. id
    if seenEntries[name] == nil then seenEntries[name] = askEntry(key, id) or false end
    return seenEntries[name] or nil
  end
  local besides = {}
  local function idBeside(command, key, from, to)
    local name = command .. ' ' .. key .. ' ' .. from
    besides[name] = besides[name] or (redis.call(command, key, from, to, 'COUNT', 1)[1] or {''})[1]
    return besides[name]
  end
  local outcomes = {'completed', 'cancelled', 'skipped', 'discarded', 'gone', 'dead', 'redriven', 'retried', 'late', 'replayed'}

  local function tell(group, keys)
    local told = {}
    local function put(name, value)
      told[#told + 1] = name
      told[#told + 1] = value
    end
    local redelivery, scheduled, scheduledJobs, dead, index, workers, info, tally, ended, notes = unpack(keys)
    local place, deadId, there, entry = whereIs({stream, redelivery, scheduled, scheduledJobs, dead, index}, group, jobId, entryId)
    if not there then return told end
    put('there', 1)
    put('place', place)
    put('hasEntry', entry and 1 or 0)
    local again = (redis.call('HGET', index, jobId) or ''):match('^redelivery (%d+%-%d+)$')
    local function pendingAt(key, id)
      return id and groupsOf(key)[group] and redis.call('XPENDING', key, group, id, id, 1)[1]
    end
    local function present()
      -- Scores in the future are of a server clock that has jumped back since.
      local from, to = string.format('%.0f', at - presentMs), string.format('%.0f', at + presentMs)
      put('workers', redis.call('ZCOUNT', workers, from, to))
      local names = redis.call('ZRANGEBYSCORE', workers, from, to, 'LIMIT', 0, maxWorkers)
      local about = #names > 0 and redis.call('HMGET', info, unpack(names)) or {}
      for i = 1, #names do about[i] = (about[i] or ''):sub(1, 1000) end
      put('about', about)
      local heard = (redis.call('HGET', info, ':beat') or ''):match('^%d+')
      if heard then put('heard', heard) end
    end
    local function tellPending(key, pending)
      put('source', key == stream and 'stream' or 'redelivery')
      put('pending', {pending[1], pending[2], pending[3], pending[4]})
      local copy = entryAt(key, pending[1])
      if copy then put('job', described(copy[2], 1, wantsPayload)) end
      local about, seen = redis.call('HGET', info, pending[2]), redis.call('ZSCORE', workers, pending[2])
      if about then put('worker', about:sub(1, 1000)) end
      if seen then put('seen', seen) end
      present()
    end
    local function tellUnread(key, id)
      local found = groupsOf(key)[group] or {['last-delivered-id'] = '0-0'}
      local last = found['last-delivered-id']
      local ahead, isExact = aheadOf(key, id, last)
      put('source', key == stream and 'stream' or 'redelivery')
      put('unread', {id, last, ahead, isExact})
      if found.lag then put('lag', found.lag) end
      -- Two more entries, which may be large: only where it takes them to estimate.
      if isExact == 0 then
        put('firstUnread', idBeside('XRANGE', key, '(' .. last, '+'))
        put('newest', idBeside('XREVRANGE', key, '+', '-'))
      end
      local copy = entryAt(key, id)
      if copy then put('job', described(copy[2], 1, wantsPayload)) end
      present()
    end
    if place == 'scheduled' then
      put('due', redis.call('ZSCORE', scheduled, jobId))
      local problem, flat = recordOf(redis.call('HGET', scheduledJobs, jobId))
      if flat then
        put('problem', problem:sub(1, 2000))
        put('job', described(flat, 1, wantsPayload))
      end
      present()
    elseif place == 'dead' then
      local letter = entryAt(dead, deadId)
      put('letter', (rowOf(letter)))
      local _, raw, from = letterOf(letter[2])
      if raw then put('job', described(raw, from, wantsPayload)) end
    elseif place == 'running' or place == 'waiting' or place == 'redelivery' then
      local pending, key = pendingAt(redelivery, again), redelivery
      if not pending and place ~= 'redelivery' then pending, key = pendingAt(stream, entryId ~= '' and entryId), stream end
      if pending then tellPending(key, pending)
      elseif place == 'redelivery' then tellUnread(redelivery, again)
      else tellUnread(stream, entryId) end
    else
      local known = redis.call('HGET', index, jobId)
      if known then put('lost', known:sub(1, 100)) end
    end
    if place ~= 'scheduled' and place ~= 'dead' and place ~= 'running' and place ~= 'waiting' and place ~= 'redelivery'
      and redis.call('EXISTS', tally) == 1 then
      local names = {}
      for i = 1, #outcomes do names[i] = minute .. ':' .. outcomes[i] end
      local counts = redis.call('HMGET', tally, unpack(names))
      for i = 1, #counts do counts[i] = counts[i] or 0 end
      put('counts', counts)
    end
    local recorded = redis.call('HGET', ended, jobId)
    if recorded then put('outcome', recorded) end
    local noted = redis.pcall('HMGET', notes, 'progress', 'progress-at', 'log', 'dropped', 'checkpoint', 'checkpoint-at')
    if not noted.err and (noted[1] or noted[3] or noted[5]) then
      put('notes', {noted[1] or '', noted[2] or '', noted[3] or '', noted[4] or '', noted[5] and #noted[5] or '', noted[6] or ''})
    end
    local cancelledAt = redis.call('ZSCORE', cancelled, jobId .. ' ' .. group)
    if cancelledAt then put('cancelled', cancelledAt) end
    local names, prefix = {'leaseMs', 'maxDeliveries', 'start', 'rewinds', 'paused', 'record'}, 'group:' .. group .. ':'
    local asked = {}
    for i = 1, #names do asked[i] = prefix .. names[i] end
    local set = redis.call('HMGET', settings, unpack(asked))
    for i = 1, #names do
      if set[i] then put(names[i], set[i]) end
    end
    return told
  end

  local all = {}
  for n = 7, #ARGV do
    local from = 4 + (n - 7) * 10
    all[#all + 1] = tell(ARGV[n], {unpack(KEYS, from, from + 9)})
  end
  return all`,
)
