import { MARK } from './cancel.ts'
import { HOLDER, PLACE } from './holder.ts'
import { GROUPS, LESS, NOW } from './lua.ts'
import { BOUND, CHECKS, COUNT, ITEMS, MARKED, MARKED_AGAIN, NUMBERS, SEQUENCE, STOP, TOKEN } from './publish.ts'
import { REPLY } from './reply.ts'
import { RECORD } from './scheduled.ts'
import { script } from './script.ts'

/** How long a key is kept whose job has not let go of it, from when the job is due or somebody last asked for the key: 30 days. */
const KEPT_MS = 2_592_000_000

/**
 * `claim(unique, at)`: what becomes of an item that names a uniqueness key, where its job is not to be appended; nil where it
 * is, and `unique.old` is then what gives way to it. Nothing is taken away before the new job is there; only the note that an
 * old one is cancelled is written before, for there may be too many, and is taken back if the new one cannot be appended.
 */
const CLAIM = `
  local canWrite = false
  local function checkWritable(key)
    -- Tried once, on what is not there: a job whose holder cannot be written would not be unique, and one that cannot be taken
    -- away would run beside the one that replaces it.
    -- No key is empty, so none has this name.
    redis.call('SET', uniqueIn(base, ''), '', 'XX', 'PX', 1)
    redis.call('ZREM', KEYS[3], '')
    redis.call('HDEL', KEYS[4], '')
    canWrite = true
  end
  local function lifeFor(dueMs)
    -- One that is set aside is never due.
    if dueMs <= nowMs or dueMs == math.huge then return '${KEPT_MS}' end
    return string.format('%.0f', ${KEPT_MS} + dueMs - nowMs)
  end
  -- What is known of the keys of this call: between two of its items nobody but itself moves a job.
  local holders, nowText = {}, string.format('%.0f', nowMs)
  local function keep(unique, job, entry, old)
    local group = unique.group == '' and ':' or unique.group
    local first = unique.first == nowMs and nowText or string.format('%.0f', unique.first)
    local text = job .. ' ' .. entry .. ' ' .. unique.scope .. ' ' .. group .. ' ' .. first
    holders[unique.key] = {job = job, entry = entry, scope = unique.scope, group = group, first = unique.first, retries = {},
      place = entry == '-' and 'later' or 'waits', isAsked = true}
    if unique.scope == 'l' and old and old.scope == 'l' then return redis.call('SET', unique.key, text, 'KEEPTTL') end
    redis.call('SET', unique.key, text, 'PX', unique.scope == 'l' and unique.ttlMs or lifeFor(unique.dueMs or 0))
  end
  local function holderFor(key)
    local holder = holders[key]
    if holder then return holder end
    local kept = redis.call('GET', key)
    holder = kept and holderOf(kept)
    if not holder then return nil end
    holder.place = placeOf(holder)
    holders[key] = holder
    return holder
  end
  local function replaceInPlace(unique, old, at)
    local last = at + 2 + tonumber(ARGV[at + 2])
    local flat = {unpack(ARGV, at + 3, last)}
    -- Its id tells when its first publish was, and '+' ms would count from then.
    for i = 1, #flat, 2 do
      local ms = flat[i] == 'expires' and flat[i + 1]:match('^%+(%d+)$')
      if ms then flat[i + 1] = string.format('%.0f', nowMs + tonumber(ms)) end
    end
    -- Who asked for the result of the one that gives way waits for this id, and nobody has told it otherwise.
    if first(flat, 'reply') == '' then
      local _, before = recordOf(redis.call('HGET', KEYS[4], old.job))
      local reply = before and first(before, 'reply') or ''
      if reply ~= '' then
        flat[#flat + 1] = 'reply'
        flat[#flat + 1] = reply
      end
    end
    flat[#flat + 1] = 'id'
    flat[#flat + 1] = old.job
    redis.call('HSET', KEYS[4], old.job, cmsgpack.pack({'', flat}))
    redis.call('ZADD', KEYS[3], string.format('%.0f', unique.dueMs), old.job)
    keep(unique, old.job, '-', old)
  end
  local function isOver(jobId, group)
    local info = groupsIn(stream)[group]
    return info and not less(info['last-delivered-id'], jobId)
      and not redis.call('XPENDING', stream, group, jobId, jobId, 1)[1]
      and not redis.call('ZSCORE', ofGroup(base, group, 'scheduled'), jobId)
      and redis.call('HEXISTS', ofGroup(base, group, 'index'), jobId) == 0
  end
  local function forgetOver()
    -- Notes of jobs that were replaced pile up for days where many are. The oldest of those that their groups have settled make room;
    -- a job whose id is not that of its entry (its second half has sixteen digits) cannot be told so.
    for _, noted in ipairs(redis.call('ZRANGE', cancelled, 0, 19)) do
      local jobId, group = noted:match('^(%d+%-%d+) ?(%S*)$')
      local _, names = groupsIn(stream)
      local all = jobId and #jobId:match('%d+$') < 16 and #names > 0
      for _, name in ipairs(group == '' and names or {group}) do all = all and isOver(jobId, name) end
      if all then redis.call('ZREM', cancelled, noted) end
    end
  end
  local function claim(unique, at)
    if unique.group == '' and unique.scope ~= 'l' then
      local _, names = groupsIn(stream)
      if #names > 1 then return '!groups' end
      unique.group = names[1] or ''
    end
    local old = holderFor(unique.key)
    local place = old and old.place
    unique.first = place and unique.mode == 'd' and old.first or nowMs
    if at and ARGV[at] == '0' then
      unique.dueMs = dueOf(ARGV[at + 1])
      if unique.mostMs then unique.dueMs = math.min(unique.dueMs, unique.first + unique.mostMs) end
    end
    if not canWrite then checkWritable(unique.key) end
    if not place then return nil end
    if unique.mode == 'r' or place == 'runs' or place == 'kept' then
      if old.scope ~= 'l' and not old.isAsked then
        local due = place == 'later' and tonumber(redis.call('ZSCORE', KEYS[3], old.job)) or nowMs
        redis.call('PEXPIRE', unique.key, lifeFor(due))
        old.isAsked = true
      end
      return '=' .. old.job
    end
    if unique.mode == 'd' and place == 'later' and unique.dueMs then
      replaceInPlace(unique, old, at)
      return '~' .. old.job
    end
    if place ~= 'later' then
      unique.mark = old.group == ':' and old.job or old.job .. ' ' .. old.group
      if redis.call('ZCARD', cancelled) >= mostMarked then forgetOver() end
      if not mark(cancelled, unique.mark, mostMarked, keepMarkMs) then return '!full' end
    end
    unique.old, unique.place = old, place
  end
  local function claimed(unique, answer)
    if answer:sub(1, 1) == '!' then
      if unique.mark then redis.call('ZREM', cancelled, unique.mark) end
      return answer
    end
    local job, old = answer:match('%d+%-%d+'), unique.old
    if old and unique.place == 'later' then
      local _, flat = recordOf(redis.call('HGET', KEYS[4], old.job))
      redis.call('ZREM', KEYS[3], old.job)
      redis.call('HDEL', KEYS[4], old.job)
      local reply = flat and replyIn(flat)
      if reply then tellEnd(base, nil, old.job, reply, 'cancelled', nowMs, '') end
    elseif old then
      -- It comes to a worker at once, which counts it as cancelled, as it does every job with such a note.
      for _, retries in ipairs(old.retries) do
        redis.pcall('ZADD', retries, 'XX', 'LT', string.format('%.0f', nowMs), old.job)
      end
    end
    keep(unique, job, answer:sub(1, 1) == '@' and '-' or job, old)
    return old and '~' .. answer .. '/' .. old.job or answer
  end`

/** A run ends here; what follows, up to the end of AFTER, is of any other item. */
const BEFORE = `
  if ARGV[at] == 'U' then
    local run, first, name = tonumber(ARGV[at + 1]), 4 + tonumber(ARGV[at + 2]), ARGV[at + 7]
    local scope, group, mode, ttlMs = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
    at = at + 7
    for i = 1, run do
      local unique = {key = KEYS[first + i], scope = scope, group = group, mode = mode, ttlMs = ttlMs}
      local ok, held = pcall(claim, unique)
      if not ok then held = '!' end
      if not held then
        local key = unique.key:sub(keyFrom)
        if scope == 's' then
          note(redis.pcall('XADD', stream, '*', 'job', name, 'data', ARGV[at + i], 'unique', key))
        else
          local untilWhen = scope == 't' and 'started' or 'ttl'
          note(redis.pcall('XADD', stream, '*', 'job', name, 'data', ARGV[at + i], 'unique', key, 'unique-until', untilWhen))
        end
        ids[count] = claimed(unique, ids[count])
      else
        note(held)
      end${STOP}
      if count == items then break end
    end
    at = at + run + 1
  else${TOKEN}
    local fresh, unique = token and not held, nil
    if ARGV[at] == 'u' then
      local most = tonumber(ARGV[at + 6])
      unique = {key = KEYS[5 + tonumber(ARGV[at + 1])], scope = ARGV[at + 2], group = ARGV[at + 3], mode = ARGV[at + 4],
        ttlMs = ARGV[at + 5], mostMs = most > 0 and most}
      at = at + 7
      if held then unique = nil
      else
        -- What fails here (a key of another type, no permission) is of this item, whose key could not be kept.
        local ok, answer = pcall(claim, unique, at)
        if not ok then answer = '!' end
        if answer then held = answer end
      end
    end`

const AFTER = `
    if unique and not held then ids[count] = claimed(unique, ids[count]) end
    if fresh then
      local job = ids[count]:sub(1, 1) ~= '!' and ids[count]:match('%d+%-%d+')
      if job then redis.call('SET', token, job, 'PX', tokenMs) else redis.pcall('PEXPIRE', token, 0) end
    end${STOP}
  end`

/**
 * The same as publishChecked, for batches in which jobs are unique: 'u', index, scope (s|t|l, see holder.ts), group or '', mode
 * (r = reject, p = replace, d = debounce), ttlMs, maxWaitMs or 0 before an item, behind its token if it has one. A token that
 * is known answers for its item; its key is not looked at then.
 *
 * Unique jobs for now of one name that have the common shape and are unique in the same way come as a run: 'U', count, index of the first
 * key, scope, group, mode, ttlMs, name, payload, …; their keys stand beside each other, and what the job says of its key is
 * read from the name of that. So most are one key and one argument.
 *
 * What becomes of an item whose key has a holder is told by '=' and its id; by '~' and an id where the job has taken the place of
 * another: of one whose fields it took over where it waits, or, with '/' and that one's id, of one that was taken away. '!groups':
 * it says for which group it is to be unique neither by name nor is there only one; '!full': too many jobs are noted as cancelled.
 *
 * In one step with the append: two producers of one key must not both find it free. And since a batch is told by its number, the
 * same batch sent again is told the same, and not that its own job is in its way.
 */
export const publishUnique = script(
  'publishUnique',
  `
  -- KEYS stream producer scheduled jobs settings [tokens and keys …]
  -- ARGV seq ttlMs items mark later check positions mostMarked keepMarkMs, then items as above
  ${SEQUENCE}${GROUPS}${LESS}${NOW}${HOLDER}${RECORD}${REPLY}
  local settings, mark, later, positions = KEYS[5], ARGV[4], tonumber(ARGV[5]), ARGV[7]
  local mostMarked, keepMarkMs = tonumber(ARGV[8]), tonumber(ARGV[9])
  local hasLater, at = later > 0, 10
  local keyFrom = #uniqueIn(baseOf(settings), '') + 1${CHECKS}
  nowMs = now()${COUNT}${BOUND}${NUMBERS}
  redis.call('HSET', producer, 'seq', seq, 'ids', '')${MARKED}${PLACE}${MARK}${CLAIM}${ITEMS(
    BEFORE,
    AFTER,
    'unique and unique.dueMs or dueOf(text)',
  )}${MARKED_AGAIN}
  return {'done', outcomes, bound or ''}`,
)

/**
 * Asked of unique jobs that were delivered, before their handlers are called: which of them are noted as cancelled. The others may
 * start, and those that hold a key until then let go of it: from here on another job may have it. Sent again it changes nothing.
 *
 * It is what makes 'replaced' true. A publish takes the place only of a job that was not delivered, in one step with the note of
 * it: if it came before the delivery, the note is seen here, and if after, it was answered with a duplicate.
 *
 * Returns {1 if jobs are noted as cancelled at all | 0, the positions, from 1, of those that are not to be started …}.
 */
export const startUnique = script(
  'startUnique',
  `${HOLDER}
  -- KEYS cancelled unique… | ARGV group jobId…, those that let go of a key first, in the order of the keys
  local cancelled, group = KEYS[1], ARGV[1]
  -- Neither in another type of key can there be a note, nor can what holds something else be held by a job.
  local hasNotes = redis.call('TYPE', cancelled).ok == 'zset'
  local noted = {hasNotes and 1 or 0}
  for i = 2, #ARGV do
    local id = ARGV[i]
    if hasNotes and (redis.call('ZSCORE', cancelled, id) or redis.call('ZSCORE', cancelled, id .. ' ' .. group)) then
      noted[#noted + 1] = i - 1
    elseif KEYS[i] then
      local kept = redis.pcall('GET', KEYS[i])
      local holder = type(kept) == 'string' and holderOf(kept)
      if holder and holder.scope == 't' and holder.job == id and (holder.group == ':' or holder.group == group) then
        redis.call('PEXPIRE', KEYS[i], 0)
      end
    end
  end
  return noted`,
)
