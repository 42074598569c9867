import { HOLDER, PLACE } from './holder.ts'
import { GROUPS, LESS, NOW } from './lua.ts'
import { PAGE_START } from './scheduled.ts'
import { script } from './script.ts'

/**
 * Recurring schedules: state, and never a chain of jobs, so that no lost link can end one. The hash has, of each schedule,
 * `<name>` = when it is due and by which rules, two lines of JSON; `<name>/job` = the flat fields of its jobs, as JSON;
 * `<name>/state` = '<version> <tick that it waits for, or -> <1 if that tick waits for the job before> <fired> <left out>
 * <last tick, or -> <its job, or ->'; `<name>/declared` = a hash of what code has last declared, which outlives its removal.
 * No name has a slash. `/version` gives every version once, so that what was worked out for a schedule that is gone, or was
 * changed, fires nothing. The sorted set beside it has the names by when they are to be looked at.
 */
export const STATE = `
  local function stateOf(text)
    local version, due, held, fired, skipped, tick, job = (text or ''):match('^(%d+) (%S+) ([01]) (%d+) (%d+) (%S+) (%S+)$')
    return version and {version = version, due = due, held = held, fired = tonumber(fired), skipped = tonumber(skipped),
      tick = tick, job = job}
  end
  local function stateText(state)
    return table.concat({state.version, state.due, state.held, string.format('%.0f', state.fired),
      string.format('%.0f', state.skipped), state.tick, state.job}, ' ')
  end`

const TYPES = `
  local function wrongType(wanted)
    for key, kind in pairs(wanted) do
      local is = redis.call('TYPE', KEYS[key]).ok
      if is ~= kind and is ~= 'none' then
        return redis.error_reply('WRONGTYPE the key ' .. KEYS[key] .. ' holds a ' .. is)
      end
    end
  end`

/** `jobFields(raw, name, tick)`: the fields of the job of a tick; nil if they are not to be read. */
const JOB_FIELDS = `
  local function jobFields(raw, name, tick)
    local ok, flat = pcall(cjson.decode, raw or '')
    if not ok or type(flat) ~= 'table' or #flat == 0 or #flat % 2 == 1 or #flat > 7900 then return nil end
    for i = 1, #flat do
      if type(flat[i]) ~= 'string' then return nil end
    end
    flat[#flat + 1] = 'cron'
    flat[#flat + 1] = name .. ' ' .. tick
    return flat
  end`

/** `nextLook()`: when the next schedule is to be looked at, '' for never. */
const NEXT_LOOK = `
  local function nextLook()
    local first = redis.call('ZRANGEBYSCORE', due, '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    return first[2] and string.format('%.0f', math.max(0, tonumber(first[2]))) or ''
  end`

/**
 * The schedules that are to be looked at now, at most `most`: {the server's time, next look or '', {name, rules, state}, …}.
 * A name in the set without a schedule is taken out of it: somebody has deleted the hash, or a field of it.
 */
export const dueCron = script(
  'dueCron',
  `${NOW}
  -- KEYS cron due | ARGV most
  local cron, due = KEYS[1], KEYS[2]${NEXT_LOOK}
  local at = now()
  local names = redis.call('ZRANGEBYSCORE', due, '-inf', at, 'LIMIT', 0, ARGV[1])
  local rows = {}
  for _, name in ipairs(names) do
    local kept = redis.call('HMGET', cron, name, name .. '/state')
    if kept[1] and kept[2] then rows[#rows + 1] = {name, kept[1], kept[2]}
    else redis.call('ZREM', due, name) end
  end
  return {string.format('%.0f', at), nextLook(), unpack(rows)}`,
)

/**
 * Fires ticks: for each schedule that still has the version and waits for the tick that they were worked out from, its jobs go
 * into the stream, and it waits for the next tick. One step, and only from that state: however often the call is sent again,
 * and by however many workers, a tick is fired once; a worker that is killed has fired it or not, and never half.
 *
 * A tick is left out, or waits, while the job of the last one has not ended in every group: that is looked up where jobs are,
 * in the same step. One that waits is looked at again after heldMs. A schedule whose job cannot be read, or for which no
 * next tick can be worked out (count -1), is set aside: it is never due, and those behind it go on.
 *
 * Ends after 500 jobs, beyond one schedule, or 1 MiB of them, beyond one job, and after 500 looks at groups. The first write is refused under
 * OOM, as a publish is. Returns {how many were looked at, next look or '', the server's time, outcome, …}, an outcome being
 * 'gone', 'aside' or '<jobs fired> <ticks left out> <1 if one waits>'.
 */
export const fireCron = script(
  'fireCron',
  `${GROUPS}${LESS}${NOW}${STATE}${TYPES}${JOB_FIELDS}
  -- KEYS stream settings cron due | ARGV heldMs, then for each: name version due next('-' = none) overlap count tick…
  local stream, settings, cron, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]${NEXT_LOOK}${HOLDER}
  local wrong = wrongType({'stream', 'hash', 'hash', 'zset'})
  if wrong then return wrong end${PLACE}
  local nowMs = now()
  redis.call('HSET', cron, '/looked', string.format('%.0f', nowMs))
  redis.call('ZREM', due, '')
  local looks, appended, bytes, failure = 0, 0, 0, nil
  local function looksUnended(job)
    local _, names = groupsIn(stream)
    looks = looks + math.max(1, #names)
    if #names == 0 then return isThere(stream, job) end
    for _, name in ipairs(names) do
      if placeOf({job = job, entry = job, scope = 's', group = name}) then return true end
    end
    return false
  end
  -- Nothing ends within this step: one look at a job is enough for all ticks behind it.
  local unended = {['-'] = false}
  local function isUnended(job)
    if unended[job] == nil then unended[job] = looksUnended(job) end
    return unended[job]
  end
  local function append(state, name, raw, tick)
    local flat = jobFields(raw, name, tick)
    flat[#flat + 1] = 'at'
    flat[#flat + 1] = tick
    local id = redis.pcall('XADD', stream, '*', unpack(flat))
    if type(id) ~= 'string' then return id end
    state.fired, state.tick, state.job = state.fired + 1, tick, id
    appended, bytes = appended + 1, bytes + #raw
  end
  local function setAside(name)
    redis.call('ZADD', due, '+inf', name)
    return 'aside'
  end
  local function fire(name, at)
    local count, overlap = tonumber(ARGV[at + 5]), ARGV[at + 4]
    local kept = redis.call('HMGET', cron, name .. '/state', name .. '/job')
    local state, raw = stateOf(kept[1]), kept[2]
    if not kept[1] then return 'gone' end
    if state and state.version ~= ARGV[at + 1] then return 'gone' end
    if not state or count < 0 then return setAside(name) end
    if state.due ~= ARGV[at + 2] then return 'gone' end
    if not jobFields(raw, name, '0') then return setAside(name) end
    local fired, skipped, held, stays = 0, 0, nil, nil
    for n = at + 6, at + 5 + count do
      if fired > 0 and bytes >= 1048576 then
        stays = ARGV[n]
        break
      end
      if overlap ~= 'allow' and isUnended(state.job) then
        if overlap == 'queue-one' then
          held = ARGV[n]
          break
        end
        skipped = skipped + 1
      else
        failure = append(state, name, raw, ARGV[n])
        if failure then
          stays = ARGV[n]
          break
        end
        fired = fired + 1
      end
    end
    state.skipped, state.held, state.due = state.skipped + skipped, held and '1' or '0', held or stays or ARGV[at + 3]
    redis.call('HSET', cron, name .. '/state', stateText(state))
    local look = held and string.format('%.0f', nowMs + tonumber(ARGV[1])) or state.due
    redis.call('ZADD', due, look == '-' and '+inf' or look, name)
    return fired .. ' ' .. skipped .. ' ' .. (held and 1 or 0)
  end
  local outcomes, at = {}, 2
  while at <= #ARGV do
    local count = math.max(0, tonumber(ARGV[at + 5]))
    if #outcomes > 0 and (appended + count > 500 or bytes >= 1048576 or looks >= 500) then break end
    outcomes[#outcomes + 1] = fire(ARGV[at], at)
    at = at + 6 + count
    if failure then break end
  end
  if failure and appended == 0 then return failure end
  return {#outcomes, nextLook(), string.format('%.0f', nowMs), unpack(outcomes)}`,
)

/**
 * Writes a schedule. One that says the same as before stays as it is, with its version; one whose times are the same goes on
 * waiting for its tick; any other waits for the next one from now on. What code declares is written only if that is not what
 * it declared last: until then what the command line has made of it stands, also that it was removed. Declared again, by a worker that
 * goes on, it is written only where it was lost: what others have declared since is newer. One that is not due though it
 * has a tick to come (set aside, or its place by time was lost) does not say the same, whatever its text.
 * Returns {'same' | 'set' | 'new', tick that it waits for or '-'}, {'kept'} if the declaration is not new and the schedule is
 * gone, {'full'}.
 */
export const setCron = script(
  'setCron',
  `${STATE}${TYPES}
  -- KEYS cron due | ARGV name rules timing job next('-' = none) most declared('' = by hand) again(1|0)
  local cron, due, name, rules, timing, job = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  local wrong = wrongType({'hash', 'zset'})
  if wrong then return wrong end
  local text = timing .. '\\n' .. rules
  local kept = redis.call('HMGET', cron, name, name .. '/job', name .. '/state', name .. '/declared')
  local state = kept[1] and stateOf(kept[3])
  local place = redis.call('ZSCORE', due, name)
  local isSound = state and place and (state.due == '-' or place ~= 'inf')
  local isSame = kept[1] == text and kept[2] == job
  if ARGV[7] ~= '' and (kept[4] == ARGV[7] or ARGV[8] == '1' and (kept[1] or kept[4])) then
    if not kept[1] then return {'kept'} end
    -- What cannot be fired is mended where it is what was declared; what somebody has made of it by hand is theirs.
    if isSound or not isSame then return {'same', state and state.due or '-'} end
  end
  if not state and redis.call('ZCARD', due) >= tonumber(ARGV[6]) then return {'full'} end
  if isSound and isSame then
    if ARGV[7] ~= '' then redis.call('HSET', cron, name .. '/declared', ARGV[7]) end
    return {'same', state.due}
  end
  local goesOn = isSound and kept[1]:sub(1, #timing + 1) == timing .. '\\n'
  local fresh = state or {fired = 0, skipped = 0, tick = '-', job = '-'}
  fresh.version = string.format('%.0f', redis.call('HINCRBY', cron, '/version', 1))
  if ARGV[7] ~= '' then redis.call('HSET', cron, name .. '/declared', ARGV[7]) end
  if not goesOn then
    fresh.due, fresh.held = ARGV[5], '0'
    redis.call('ZADD', due, ARGV[5] == '-' and '+inf' or ARGV[5], name)
  end
  redis.call('HSET', cron, name, text, name .. '/job', job, name .. '/state', stateText(fresh))
  return {state and 'set' or 'new', fresh.due}`,
)

/** Removes a schedule; jobs that it has fired stay. What code has declared is remembered, and not made again. Returns 1 or 0. */
export const removeCron = script(
  'removeCron',
  `
  -- KEYS cron due | ARGV name
  redis.call('ZREM', KEYS[2], ARGV[1])
  return redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. '/job', ARGV[1] .. '/state') > 0 and 1 or 0`,
)

/**
 * Publishes the job of a schedule once, now, whatever its ticks and its overlap say; it counts as its last one. Returns
 * {id}, {} if there is no such schedule, {'broken'} if its job is not to be read.
 */
export const runCron = script(
  'runCron',
  `${STATE}${TYPES}${JOB_FIELDS}
  -- KEYS stream cron | ARGV name
  local wrong = wrongType({'stream', 'hash'})
  if wrong then return wrong end
  local name = ARGV[1]
  local kept = redis.call('HMGET', KEYS[2], name .. '/job', name .. '/state')
  local state = kept[1] and stateOf(kept[2])
  if not state then return {} end
  local flat = jobFields(kept[1], name, 'run')
  if not flat then return {'broken'} end
  state.job = redis.call('XADD', KEYS[1], '*', unpack(flat))
  state.fired = state.fired + 1
  redis.call('HSET', KEYS[2], name .. '/state', stateText(state))
  return {state.job}`,
)

/**
 * A page of the schedules, by when they are looked at and then by name, after a given one. At most 500.
 * Returns {the server's time, 1 if there is more, {name, score, timing and rules, state}, …}.
 */
export const listCron = script(
  'listCron',
  `${NOW}${PAGE_START}
  -- KEYS cron due | ARGV score('' = from the first) name limit
  local cron, due = KEYS[1], KEYS[2]
  local low = pageStart(due, ARGV[1], ARGV[2], false)
  local range = redis.call('ZRANGE', due, low, low + math.min(tonumber(ARGV[3]), 500) - 1, 'WITHSCORES')
  local rows = {}
  for i = 1, #range, 2 do
    local kept = redis.call('HMGET', cron, range[i], range[i] .. '/state')
    rows[#rows + 1] = {range[i], range[i + 1], kept[1] or '', kept[2] or ''}
  end
  return {string.format('%.0f', now()), low + #rows < redis.call('ZCARD', due) and 1 or 0, unpack(rows)}`,
)
