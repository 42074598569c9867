import { KEY_NAMES } from '../keys.ts'

/**
 * Pieces of Lua about who holds a uniqueness key. The key is a string: '<job id> <its entry, or - of a job that has none yet>
 * <how long: s = until it is settled, t = until it is started, l = as long as the key lives> <group, or : for any>
 * <when what it stands for was first published, in ms>'.
 *
 * A key is made of what a job says of itself, and groups are known to Redis alone, so the names of these keys, and of those that a
 * group has a job in, are put together here: behind the prefix of the stream, so that they share its slot.
 */

/** `holderOf(text)`: the parts of a holder, nil of a text that is none. */
export const HOLDER = `${KEY_NAMES}
  local function holderOf(text)
    local job, entry, scope, group, first = text:match('^(%d+%-%d+) (%S+) ([stl]) (%S+) (%d+)$')
    return job and {job = job, entry = entry, scope = scope, group = group, first = tonumber(first)}
  end`

/**
 * `release(key, jobId, group, isCompleted)`: a job of this group has its outcome: it holds its key no more, unless that is another's
 * by now, or it is another group that it is held for. A key that is held for a time of its own outlives a completion. Never
 * fails: by then the job has been settled.
 */
export const RELEASE = `${HOLDER}
  local function release(key, jobId, group, isCompleted)
    local kept = redis.pcall('GET', key)
    local holder = type(kept) == 'string' and holderOf(kept)
    if not holder or holder.job ~= jobId or (holder.group ~= ':' and holder.group ~= group) then return end
    if isCompleted and holder.scope == 'l' then return end
    redis.pcall('PEXPIRE', key, 0)
  end`

/** `keyIn(flat)`: the uniqueness key that an entry names, nil for most; by its first field of that name. */
export const KEY_IN = `
  local function keyIn(flat)
    for i = 1, #flat, 2 do
      if flat[i] == 'unique' then return flat[i + 1] end
    end
  end`

/**
 * `placeOf(holder)`: what a holder is at, looked up where jobs are, since a job may go in many ways of which its key hears
 * nothing: cancelled, purged, trimmed, deleted by hand. nil: it is not there any more, or has its outcome. 'later': it is
 * published for later. 'waits': not delivered yet, or it waits for another attempt, and `holder.retries` are the sets that it
 * waits in. 'runs': it was delivered. 'kept': over, but its time is not.
 *
 * Whether an entry is there can be told only by reading it. A producer that may not read jobs, or has read 1 MiB of them in one
 * batch, takes it to be: all but an entry that was deleted by hand is seen from what the group says of it.
 *
 * Held for no group by name, it is held until one of them has settled it. Takes `stream` and `settings`.
 */
export const PLACE = `
  local base = baseOf(settings)
  local cancelled = cancelledIn(base)
  local known = {}
  local function groupsIn(key)
    if not known[key] then known[key] = {groupsOf(key)} end
    return known[key][1], known[key][2]
  end
  local looked = 0
  local function isThere(key, id)
    if looked > 1048576 then return true end
    local found = redis.pcall('XRANGE', key, id, id)
    if found.err then return true end
    for i = 1, found[1] and #found[1][2] or 0 do looked = looked + #found[1][2][i] end
    return found[1] ~= nil
  end
  -- Most streams have nothing cancelled, and most groups nothing that waits for another attempt.
  local there, places = {}, {}
  local function has(key)
    if there[key] == nil then there[key] = redis.call('EXISTS', key) == 1 end
    return there[key]
  end
  local function placesOf(group)
    if not places[group] then
      places[group] = {scheduled = ofGroup(base, group, 'scheduled'), index = ofGroup(base, group, 'index')}
    end
    return places[group]
  end
  local function isCancelled(member) return has(cancelled) and redis.call('ZSCORE', cancelled, member) end
  local function placeIn(key, group, id)
    local info = groupsIn(key)[group]
    if info then
      local place
      if info.pending > 0 and redis.call('XPENDING', key, group, id, id, 1)[1] then place = 'runs'
      elseif less(info['last-delivered-id'], id) then place = 'waits' end
      return place and isThere(key, id) and place or nil
    end
    if not isThere(key, id) then return nil end
    -- Of a group that is gone: unless somebody has removed it, it is made again at its floor, that of its redelivery at 0.
    if key ~= stream then return 'waits' end
    if redis.call('HEXISTS', settings, 'removed:' .. group) == 1 then return nil end
    local floor = redis.call('HGET', settings, 'group:' .. group .. ':floor')
    return (not floor or less(floor, id)) and 'waits' or nil
  end
  local function placeFor(holder, group)
    if isCancelled(holder.job .. ' ' .. group) then return nil, true end
    local scheduled, indexed = placesOf(group).scheduled, placesOf(group).index
    if has(scheduled) and redis.call('ZSCORE', scheduled, holder.job) then
      holder.retries[#holder.retries + 1] = scheduled
      return 'waits'
    end
    local index = has(indexed) and redis.call('HGET', indexed, holder.job) or ''
    local dead = index:match('^dead (%d+%-%d+)$')
    if dead then return nil, true end
    local again = index:match('^redelivery (%d+%-%d+)$')
    local place = again and placeIn(ofGroup(base, group, 'redelivery'), group, again)
    if place or holder.entry == '-' then return place or nil end
    return placeIn(stream, group, holder.entry)
  end
  local function placeOf(holder)
    holder.retries = {}
    if isCancelled(holder.job) then return nil end
    if holder.entry == '-' then return redis.call('ZSCORE', scheduledIn(base), holder.job) and 'later' or nil end
    local _, names = groupsIn(stream)
    local groups = holder.group == ':' and names or {holder.group}
    local place, isOver = 'waits', false
    for _, group in ipairs(groups) do
      local there, isLost = placeFor(holder, group)
      if isLost then return nil end
      if not there then isOver = true end
      if there == 'runs' then place = 'runs' end
    end
    if #groups == 0 and not isThere(stream, holder.entry) then isOver = true end
    if not isOver then return place end
    return holder.scope == 'l' and 'kept' or nil
  end`
