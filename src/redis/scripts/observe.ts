import { STATE } from './cron.ts'
import { FIELDS, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * What metrics are made of, for hundreds of streams at a time: as little as tells the numbers. Nothing here writes. The
 * numbers that an inspector tells too follow the same rules as in inspect.ts.
 *
 * Group names are any bytes, for anybody may create a group: here they go as ids, in which all but letters, digits and
 * _ . - is %XX. Only a group whose id is its name, of at most 64 characters, can have keys of millrace.
 */
const IDS = `
  local function idOf(name)
    if not name:find('[^%w_.-]') then return name end
    return (name:gsub('[^%w_.-]', function(c) return string.format('%%%02X', c:byte()) end))
  end
  local function isPlain(id)
    return #id <= 64 and not id:find('%', 1, true)
  end
  local function groupsAt(key)
    local groups = redis.pcall('XINFO', 'GROUPS', key)
    if not groups.err then return groups end
    if groups.err:find('no such key', 1, true) then return {} end
    return error(groups.err)
  end
  local function groupById(key, id)
    for _, flat in ipairs(groupsAt(key)) do
      local group = fields(flat)
      if idOf(group.name) == id then return group end
    end
  end`

/**
 * A stream, the names of its groups, and how some of them stand. Of these it stops early, but not before the first, once it
 * has asked maxWorkers workers or read entries of 1 MiB: the first unread entry of a group is had only with its payload.
 *
 * Returns {kind} where there is no stream, else {'stream', now, entries, added or '', last id or '', waiting, schedules as waiting, pause or '',
 * count of groups, {id, …} of the first mostGroups, group, …} with a group for each that was asked for, in that order:
 * '' where it is gone, else {seen on the stream, seen on the redelivery stream, waiting, dead, oldest dead id or '', workers,
 * {about, …}, last heard ms or '', pause or ''}.
 * seen = {lag or '', first unread id or '', pending, oldest pending id or '', entries read or '', last delivered id, consumers},
 * {} where there is no such group; waiting = {jobs, set aside, next due ms or '', due now}.
 */
export const observeStream = script(
  'observeStream',
  `${FIELDS}${NOW}${IDS}${STATE}
  -- KEYS stream scheduled settings cronDue cron, and of each plain group: redelivery workers info dead scheduled
  -- ARGV presentMs maxWorkers mostGroups group ids
  local stream, settings = KEYS[1], KEYS[3]
  local presentMs, maxWorkers, mostGroups = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
  local kind = redis.call('TYPE', stream).ok
  if kind ~= 'stream' and (kind ~= 'none' or redis.call('EXISTS', KEYS[2], KEYS[4]) == 0) then return {kind} end
  local at, spent = now(), 0
  local function text(ms) return string.format('%.0f', ms) end
  local function firstId(rows)
    local row = rows[1]
    if not row then return '' end
    for _, part in ipairs(row[2] or {}) do spent = spent + #part / 1048576 end
    return row[1]
  end
  local function standing(scheduled)
    local jobs = redis.call('ZCARD', scheduled)
    if jobs == 0 then return {0, 0, '', 0} end
    local score = tonumber(redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')[2])
    -- What could not be moved was set aside at a score that never comes.
    local aside = redis.call('ZCOUNT', scheduled, '+inf', '+inf')
    local due = score <= at and redis.call('ZCOUNT', scheduled, '-inf', text(at)) or 0
    return {jobs, aside, score < math.huge and text(score) or '', due}
  end
  -- Schedules that have ended have the same score as those set aside: of all that are never due the first 500 are looked at.
  local function schedules()
    local told = standing(KEYS[4])
    if told[2] == 0 then return told end
    local names = redis.call('ZRANGEBYSCORE', KEYS[4], '+inf', '+inf', 'LIMIT', 0, 500)
    for i = 1, #names do names[i] = names[i] .. '/state' end
    local states, ended = redis.pcall('HMGET', KEYS[5], unpack(names)), 0
    for i = 1, #names do
      local state = stateOf(states[i])
      if state and state.due == '-' then ended = ended + 1 end
    end
    told[2] = #names - ended
    return told
  end
  local function seen(key, found, isUpToDate)
    local delivered, unread, lag, oldest = found['last-delivered-id'], '', found.lag or '', ''
    if not isUpToDate then
      -- The highest id there is has no successor, and asking for one is an error.
      local range = redis.pcall('XRANGE', key, '(' .. delivered, '+', 'COUNT', 1)
      unread = range.err and '' or firstId(range)
    end
    if unread == '' then lag = 0 elseif lag == 0 then lag = '' end
    if found.pending > 0 then
      oldest = (redis.call('XPENDING', key, found.name, '-', '+', 1)[1] or {''})[1]
    end
    return {lag, unread, found.pending, oldest, found['entries-read'] or '', delivered, found.consumers}
  end
  local about, byId, ids, count = {}, {}, {}, 0
  if kind == 'stream' then
    about = fields(redis.call('XINFO', 'STREAM', stream))
    for _, end_ in ipairs({'first-entry', 'last-entry'}) do
      if about[end_] then firstId({about[end_]}) end
    end
    for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local group = fields(flat)
      count = count + 1
      local id = idOf(group.name)
      byId[id] = group
      if count <= mostGroups then ids[count] = id end
    end
  end
  local asked = {'paused'}
  for i = 4, #ARGV do asked[i - 2] = 'group:' .. ARGV[i] .. ':paused' end
  local paused = redis.call('HMGET', settings, unpack(asked))
  local last = about['last-generated-id'] or ''
  local reply = {'stream', text(at), about.length or 0, about['entries-added'] or '', last, standing(KEYS[2]), schedules(),
    paused[1] or '', count, ids}
  local keyAt = 6
  local from, to = text(at - presentMs), text(at + presentMs)
  local function work(group, pause)
    local redelivery, workers, info, dead = KEYS[keyAt], KEYS[keyAt + 1], KEYS[keyAt + 2], KEYS[keyAt + 3]
    local onRedelivery = {}
    for _, flat in ipairs(groupsAt(redelivery)) do
      local again = fields(flat)
      if again.name == group.name then
        onRedelivery = seen(redelivery, again, redis.call('XLEN', redelivery) == 0)
      end
    end
    -- Scores in the future are of a server clock that has jumped back since.
    local names = redis.call('ZRANGEBYSCORE', workers, from, to, 'LIMIT', 0, maxWorkers)
    local present = #names < maxWorkers and #names or redis.call('ZCOUNT', workers, from, to)
    local told = redis.call('HMGET', info, ':beat', unpack(names))
    local heard = (told[1] or ''):match('^%d+') or ''
    local says = {}
    for i = 1, #names do says[i] = told[i + 1] or '' end
    spent = spent + #names / maxWorkers
    local letters = redis.call('XLEN', dead)
    local died = letters > 0 and firstId(redis.call('XRANGE', dead, '-', '+', 'COUNT', 1)) or ''
    return onRedelivery, standing(KEYS[keyAt + 4]), letters, died, present, says, heard, pause or ''
  end
  for i = 4, #ARGV do
    local group = byId[ARGV[i]]
    if i > 4 and spent >= 1 then break end
    if not group then
      reply[#reply + 1] = ''
    else
      local onStream = seen(stream, group, group['last-delivered-id'] == last)
      if isPlain(ARGV[i]) then
        reply[#reply + 1] = {onStream, work(group, paused[i - 2])}
      else
        reply[#reply + 1] = {onStream, {}, {0, 0, '', 0}, 0, '', 0, {}, '', ''}
      end
    end
    if isPlain(ARGV[i]) then keyAt = keyAt + 5 end
  end
  return reply`,
)

/**
 * How many of the oldest pending entries of a group, at most `most` of each key, have not been renewed for so many leases,
 * whoever has them. An entry that is younger than that cannot be one, so it is not even asked for; unless ids are ahead of
 * the clock, which went back then. An idle time is compared here: XPENDING with IDLE goes on until it has found what it was asked for,
 * through a million entries if need be. Returns a number.
 */
export const countStuck = script(
  'countStuck',
  `${FIELDS}${NOW}${IDS}
  -- KEYS stream settings redelivery (of a plain group) | ARGV group id, most, leases, leaseMs if none is set, 1 if ids are ahead
  local id, most = ARGV[1], tonumber(ARGV[2])
  local set = redis.call('HGET', KEYS[2], 'group:' .. id .. ':leaseMs')
  local idleMs = tonumber(ARGV[3]) * (tonumber(set or ARGV[4]) or tonumber(ARGV[4]))
  local last = ARGV[5] == '1' and '+' or string.format('%.0f', math.max(0, now() - idleMs))
  local name = id
  if not isPlain(id) then
    local group = groupById(KEYS[1], id)
    if not group then return 0 end
    name = group.name
  end
  local count = 0
  for _, key in ipairs({KEYS[1], KEYS[3]}) do
    local rows = redis.pcall('XPENDING', key, name, '-', last, most)
    if rows.err and not rows.err:find('^-?NOGROUP') then return rows end
    for _, row in ipairs(rows) do
      if row[3] >= idleMs then count = count + 1 end
    end
  end
  return count`,
)

/**
 * The consumers of a group that hold the most, on the stream and the redelivery stream together.
 * Returns {now, {id, pending, idle ms}, …}, their names as ids.
 */
export const listConsumers = script(
  'listConsumers',
  `${FIELDS}${NOW}${IDS}
  -- KEYS stream redelivery (of a plain group) | ARGV group id, most
  local id, most = ARGV[1], tonumber(ARGV[2])
  local byName, rows = {}, {}
  for _, key in ipairs(KEYS) do
    local group = groupById(key, id)
    for _, flat in ipairs(group and redis.call('XINFO', 'CONSUMERS', key, group.name) or {}) do
      local consumer = fields(flat)
      local row = byName[consumer.name]
      if row then
        row[2] = row[2] + consumer.pending
        row[3] = math.min(row[3], consumer.idle)
      else
        row = {consumer.name, consumer.pending, consumer.idle}
        byName[consumer.name] = row
        rows[#rows + 1] = row
      end
    end
  end
  table.sort(rows, function(a, b)
    if a[2] ~= b[2] then return a[2] > b[2] end
    return a[1] < b[1]
  end)
  local reply = {string.format('%.0f', now())}
  for i = 1, math.min(#rows, most) do reply[i + 1] = {idOf(rows[i][1]), rows[i][2], rows[i][3]} end
  return reply`,
)
