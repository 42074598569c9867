/**
 * Pieces of Lua that several scripts must agree on to the letter. Each is a local function with no state.
 */

/** `fields(reply)`: a flat name, value, … reply as a table. */
export const FIELDS = `
  local function fields(flat)
    local named = {}
    for i = 1, #flat, 2 do named[flat[i]] = flat[i + 1] end
    return named
  end`

/** `now()`: the server's time in ms. Leases, ticks and presence use no other clock. */
export const NOW = `
  local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
  end`

/** `less(a, b)`: order of two entry ids, as text: their halves are 64 bits wide and Lua's numbers are not. */
export const LESS = `
  local function less(a, b)
    local aMs, aSeq = a:match('^(%d+)-(%d+)$')
    local bMs, bSeq = b:match('^(%d+)-(%d+)$')
    if #aMs ~= #bMs then return #aMs < #bMs end
    if aMs ~= bMs then return aMs < bMs end
    if #aSeq ~= #bSeq then return #aSeq < #bSeq end
    return aSeq < bSeq
  end`

/**
 * `groupsOf(key)`: the groups of a stream by name; empty for a missing key. Asked before XGROUP CREATE, which under OOM
 * answers OOM and not BUSYGROUP for a group that is there.
 */
export const GROUPS = `${FIELDS}
  local function groupsOf(key)
    local found, names = {}, {}
    if redis.call('EXISTS', key) == 1 then
      for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
        local group = fields(flat)
        found[group.name] = group
        names[#names + 1] = group.name
      end
    end
    return found, names
  end`

/**
 * `floorOf(stream, group)`: the highest id up to which the group has settled everything, or nil if the group is gone.
 * A group that vanished is made again there. Ids at the edge of what a Lua number holds give nil: the older floor stays.
 */
export const FLOOR = `${GROUPS}
  local function floorOf(stream, group)
    local first = redis.call('XPENDING', stream, group, '-', '+', 1)[1]
    if not first then
      local found = groupsOf(stream)[group]
      return found and found['last-delivered-id']
    end
    local ms, seq = first[1]:match('^(%d+)-(%d+)$')
    if #ms > 15 or #seq > 15 then return nil end
    if seq ~= '0' then return ms .. '-' .. string.format('%.0f', tonumber(seq) - 1) end
    if ms == '0' then return nil end
    return string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
  end`

/**
 * `isQuiet(info, at, intervalMs, leaseMs)`: notes that the group is alive, and tells whether claims must wait. If nobody
 * was heard of for more than three intervals, Redis was away, stopped or failed over, or its clock jumped: idle times then
 * say nothing about the workers. Nobody claims for half a lease, so that those who live renew first. Without this a stop
 * of five seconds had half of the live jobs stolen.
 */
export const QUIET = `
  local function isQuiet(info, at, intervalMs, leaseMs)
    local heard = tonumber(redis.call('HGET', info, ':beat') or 0)
    local quietUntil = tonumber(redis.call('HGET', info, ':quiet') or 0)
    if at - heard > 3 * intervalMs or at < heard then
      quietUntil = at + leaseMs / 2
      redis.call('HSET', info, ':quiet', quietUntil)
    end
    redis.call('HSET', info, ':beat', at)
    return at < quietUntil and quietUntil - at <= leaseMs / 2
  end`

/**
 * `hasSilent(source, group, me, leaseMs)`: whether another consumer holds entries and was silent for a lease.
 * A live worker is heard of at least every third of a lease, since its renewals count.
 */
export const SILENT = `
  local function hasSilent(source, group, me, leaseMs)
    for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', source, group)) do
      local consumer = fields(flat)
      if consumer.pending > 0 and consumer.idle >= leaseMs and consumer.name ~= me and consumer.name ~= ':handback' then
        return true
      end
    end
    return false
  end`

/**
 * `waiting(scheduled)`: how a sorted set of scheduled jobs stands: {jobs, those of them that are set aside, when the next is
 * due in ms or ''}. What could not be moved was set aside at a score that never comes.
 */
export const WAITING = `
  local function waiting(scheduled)
    local aside = redis.call('ZCOUNT', scheduled, '+inf', '+inf')
    local first = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
    local due = first[2] and tonumber(first[2]) < math.huge and string.format('%.0f', first[2]) or ''
    return {redis.call('ZCARD', scheduled), aside, due}
  end`

/**
 * `createAtEnd(stream, group)`: a group for what is published from now on, whose lag stays known: from 7.0 on Redis counts it
 * from how many entries the group has read, and does not know that of one that begins at the end unless it is told.
 */
export const AT_END = `
  local function createAtEnd(stream, group)
    local added = redis.call('EXISTS', stream) == 1 and fields(redis.call('XINFO', 'STREAM', stream))['entries-added']
    if added then redis.call('XGROUP', 'CREATE', stream, group, '$', 'ENTRIESREAD', added)
    else redis.call('XGROUP', 'CREATE', stream, group, '$', 'MKSTREAM') end
  end`

/**
 * `isRecording(settings, group)`: whether the group keeps how each of its jobs ended. `record(key, jobId, outcome, at, ttlMs)`
 * writes that of one job; an hour that has a million already takes no more. `recordAll(key, lines, ttlMs)` writes job ids and
 * their lines, of at most 500 jobs, in one command. None ever fails: by then the job has been moved, and what is only a
 * record must not have it moved again.
 */
export const RECORD_OUTCOMES = `
  local function isRecording(settings, group)
    return redis.pcall('HGET', settings, 'group:' .. group .. ':record') == 'outcomes'
  end
  local function record(key, jobId, outcome, at, ttlMs)
    local size = redis.pcall('HLEN', key)
    if type(size) ~= 'number' or (size >= 1000000 and redis.call('HEXISTS', key, jobId) == 0) then return end
    redis.pcall('HSET', key, jobId, outcome .. ' ' .. string.format('%.0f', at))
    if size == 0 then redis.call('PEXPIRE', key, ttlMs) end
  end
  local function recordAll(key, lines, ttlMs)
    local size = redis.pcall('HLEN', key)
    if type(size) ~= 'number' or #lines == 0 then return end
    if size + #lines / 2 <= 1000000 then
      redis.pcall('HSET', key, unpack(lines))
    else
      for i = 1, #lines, 2 do
        if redis.call('HLEN', key) < 1000000 or redis.call('HEXISTS', key, lines[i]) == 1 then
          redis.pcall('HSET', key, lines[i], lines[i + 1])
        end
      end
    end
    if size == 0 then redis.call('PEXPIRE', key, ttlMs) end
  end`

/**
 * `walk(command, key, from, to, most, visit)`: calls visit(entry) for the entries of a range in the order of the command,
 * XRANGE or XREVRANGE: at most `most`, and no more than about 1 MiB beyond one entry. Gives where to go on, nil at the end or
 * where visit answers true, and an error beside it. A field counts some bytes beyond its text: that is what it takes in a script.
 *
 * XRANGE brings the payloads of as many entries as its COUNT says into the script, however large they are, and nobody knows
 * before. So it is asked for one and then for a few at a time, and for fewer once large ones were seen: a step that grows
 * while entries are small would bring hundreds of large ones at once as soon as those begin.
 */
export const WALK = `
  local function walk(command, key, from, to, most, visit)
    local got, bytes, largest, count = 0, 0, 64, 1
    while true do
      local rows = redis.pcall(command, key, from, to, 'COUNT', count)
      if rows.err then
        -- The highest and the lowest id there is have nothing beside them, and asking for it is an error.
        if from:sub(1, 1) == '(' and rows.err:find('ID for the interval', 1, true) then return nil end
        return nil, rows
      end
      for i = 1, #rows do
        local flat = rows[i][2]
        local size = 8 * #flat
        for f = 1, #flat do size = size + #flat[f] end
        bytes = bytes + size
        if size > largest then largest = size end
        if visit(rows[i]) then return nil end
      end
      got = got + #rows
      if #rows < count then return nil end
      from = '(' .. rows[#rows][1]
      if got >= most or bytes >= 1048576 then return from end
      count = math.max(1, math.min(32, most - got, math.floor((1048576 - bytes) / largest)))
    end
  end`
