import { KEY_NAMES } from '../keys.ts'
import { GROUPS, LESS, NOW, WALK } from './lua.ts'
import { script } from './script.ts'
import { JOB_OF } from './whereabouts.ts'

/**
 * Jobs of one key run one at a time, in the order of their entries, in each group.
 *
 *   delivered ─walk─▶ in line ─first, and nobody has the turn─▶ has the turn ─completed, dead, cancelled, skipped─▶ gone from the line
 *                        │                                          └─tried again, put off─▶ keeps it, wherever it waits
 *                        └─another is before it─▶ waits in the group's scheduled set ─the one before it is gone: due now─▶ delivered again
 *
 * A line is a sorted set of job ids, `…:order:<key>`, by position; who has the turn has its position negated, and so is first. The
 * hash `…:order` has the last position given (`:position`), up to which entry of each source all have been lined up (`:stream`,
 * `:again`), and by job id the entry of those whose id is not that of their entry.
 *
 * What fails in between leaves either a job in line that is there, and which asks again by itself (it is claimed, or due), or one
 * that is not: a ghost, which whoever looks at the head of the line takes out. So a line never stops for good, and no job is in
 * it alone: where a job is, is told by stream, scheduled set and dead letters as ever.
 */

/** How long a line is kept in which nobody asks: 30 days. Of a group that was removed nothing else would end it. */
const KEPT_MS = 2_592_000_000
/** Ghosts that one look at a line takes out. */
const GHOSTS = 100
/**
 * So many that wait in the scheduled set behind each other are due together: whoever reads them has one after the other, where each alone
 * would have to be moved, read and asked for first. (One at a time: 50 jobs a second of a key.) What several workers read of it all but
 * the first of them puts back: with 100, four workers on 25 long lines moved each job 3.3 times, with 16 they do 1.4 times.
 */
const TOGETHER = 16
/** How soon the next one in line looks by itself whether the one before it is still there. */
const LOOK_MS = 30_000

/**
 * `orderKeyIn(flat)`: the key by which an entry is in order, nil for most; by its first field of that name. One that is too long
 * is of an entry that is malformed.
 *
 * `isThere(base, group, jobId)`: whether a job in line has its outcome still before it; and the consumer that has it, if one has. A job
 * that is set aside, and never due, holds up nobody.
 *
 * `giveOn(base, group, line)`: where nobody has the turn, and the first in line waits in the scheduled set, it is due now, and those
 * that wait there behind it. Gives true then. `endTurn(base, group, key, jobId)`: a job has its outcome, or lines up anew: the turn is the next one's. Never fails: by
 * then the job has been settled.
 */
export const ORDER = `${KEY_NAMES}
  local function streamOf(base) return base:match('^{([^{}]+)}$') or base end
  local function lineOf(base, group, key) return ofGroup(base, group, 'order:' .. key) end
  local function orderKeyIn(flat)
    for i = 1, #flat, 2 do
      if flat[i] == 'key' then
        local key = flat[i + 1]
        return #key > 0 and #key <= 256 and key or nil
      end
    end
  end
  local function hasEntry(source, group, id)
    local pending = redis.pcall('XPENDING', source, group, id, id, 1)
    -- Without its group nothing is known: what was delivered is delivered again.
    if pending.err then return true end
    if pending[1] then return true, pending[1][2] end
    local found = groupsOf(source)[group]
    return found and less(found['last-delivered-id'], id) and redis.call('XRANGE', source, id, id)[1] ~= nil
  end
  local function isThere(base, group, jobId)
    local due = redis.call('ZSCORE', ofGroup(base, group, 'scheduled'), jobId)
    if due and due ~= 'inf' then return true end
    local indexed = redis.call('HGET', ofGroup(base, group, 'index'), jobId) or ''
    local again = indexed:match('^redelivery (%d+%-%d+)$')
    if again then
      local there, owner = hasEntry(ofGroup(base, group, 'redelivery'), group, again)
      if there then return true, owner end
    end
    return hasEntry(streamOf(base), group, redis.call('HGET', ofGroup(base, group, 'order'), jobId) or jobId)
  end
  local function unlined(base, group, line, jobId)
    redis.call('HDEL', ofGroup(base, group, 'order'), jobId)
    return redis.call('ZREM', line, jobId) == 1
  end
  local function giveOn(base, group, line)
    for _ = 1, ${GHOSTS} do
      local first = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
      if not first[1] or tonumber(first[2]) < 0 then return false end
      local scheduled = ofGroup(base, group, 'scheduled')
      local due = redis.call('ZSCORE', scheduled, first[1])
      if due and due ~= 'inf' then
        local at = string.format('%.0f', now())
        for _, jobId in ipairs(redis.call('ZRANGE', line, 0, ${TOGETHER - 1})) do
          if redis.call('ZADD', scheduled, 'XX', 'LT', 'CH', at, jobId) == 0 and jobId ~= first[1] then break end
        end
        return true
      end
      if isThere(base, group, first[1]) then return false end
      unlined(base, group, line, first[1])
    end
    return false
  end
  local function endTurn(base, group, key, jobId)
    local ok, isWoken = pcall(function()
      local line = lineOf(base, group, key)
      return unlined(base, group, line, jobId) and giveOn(base, group, line)
    end)
    return ok and isWoken
  end`

/**
 * Jobs that were delivered ask for their turns, before anything else may put them off.
 *
 * First all entries of their source up to them are lined up that have a key and no outcome, in the order of the source: a read gives
 * the entries of one key to many workers, and the one with the later entry may ask first. At most `most` entries or about a MiB of them a
 * call. An entry is lined up once; but of the stream it is lined up anew where the group was set back, or made again, and so
 * reads it anew: then all behind it are, too.
 *
 * The first in line has its turn where nobody has it; one that is lined up where there was no line has it with that. Nothing is written but
 * that: who has to wait is put off by its worker in another step (settleFenced), which looks at the line once more.
 *
 * Fenced by consumer and deliveries. The asks come as one argument, and most answers are one word: what a client spends on each value is most of
 * what it spends on a turn. Returns per ask 'granted' | 'lost' | 'again' (not everything up to it could be lined up yet) | 'broken' (its
 * line is none), or {'behind' | 'here' (behind a job that this worker has), id of the first in line, jobs before it, its position}.
 */
export const askTurns = script(
  'askTurns',
  `${GROUPS}${LESS}${NOW}${WALK}${ORDER}${JOB_OF}
  -- KEYS source settings order scheduled index
  -- ARGV group me isStream(1|0) most asks, as JSON: per ask, in rising order of the entries: [entryId, deliveries, jobId, key]
  local source, settings, order, scheduled, index = unpack(KEYS)
  local group, me, isStream = ARGV[1], ARGV[2], ARGV[3] == '1'
  local base = settings:sub(1, -10)
  redis.call('XACK', source, group, '0-1') -- under OOM a first harmless write lets the others pass
  local cursorField = isStream and ':stream' or ':again'
  local kept = redis.call('HMGET', order, cursorField, ':position')
  local cursor, given = kept[1] or '0-0', tonumber(kept[2])
  local function nextPosition()
    if not given then
      -- Positions rise also where the last one was lost.
      local time = redis.call('TIME')
      given = time[1] * 1000000 + time[2]
    end
    given = given + 1
    return string.format('%.0f', given)
  end
  -- What this call has seen it need not look up again: most that ask were just lined up, and many may ask for one line.
  local seen, lined, positions, heads, turns, owners, states = {}, {}, {}, {}, {}, {}, {}
  local function lineUp(line, jobId, entryId, isAnew)
    if lined[entryId] == line then return end
    lined[entryId] = line
    if redis.call('EXISTS', line) == 0 then
      -- Nobody is before it: it has the turn with that.
      positions[entryId], heads[line], turns[line] = nextPosition(), jobId, jobId
      redis.call('ZADD', line, '-' .. positions[entryId], jobId)
      redis.call('PEXPIRE', line, '${KEPT_MS}')
    else
      positions[entryId] = redis.call('ZSCORE', line, jobId)
      if positions[entryId] and (not isAnew or redis.call('HEXISTS', index, jobId) == 1) then return end
      positions[entryId], heads[line], turns[line] = nextPosition(), nil, nil
      redis.call('ZADD', line, positions[entryId], jobId)
    end
    if isStream and jobId ~= entryId then redis.call('HSET', order, jobId, entryId) end
  end
  local function pendingAt(id)
    if seen[id] == nil then seen[id] = redis.call('XPENDING', source, group, id, id, 1)[1] or false end
    return seen[id]
  end

  local asks = cjson.decode(ARGV[5])
  local last = asks[#asks][1]
  if isStream then
    local floor = redis.call('HGET', settings, 'group:' .. group .. ':floor')
    if floor and floor:match('^%d+%-%d+$') and less(cursor, floor) then cursor = floor end
  end
  if less(cursor, last) then
    local following, refusal = walk('XRANGE', source, '(' .. cursor, last, tonumber(ARGV[4]), function(entry)
      local key = orderKeyIn(entry[2])
      -- A line that holds something else is told to whoever asks for it.
      if key and pendingAt(entry[1]) then
        pcall(lineUp, lineOf(base, group, key), jobOf(entry), entry[1], isStream)
      end
    end)
    if refusal then return refusal end
    cursor = following and following:sub(2) or last
  end

  local function ownerOf(jobId)
    if owners[jobId] == nil then owners[jobId] = select(2, isThere(base, group, jobId)) or false end
    return owners[jobId]
  end
  -- Who is first in line, and is there. If it is the one that asks, it has its turn from here on.
  local function headOf(line, jobId)
    for _ = 1, ${GHOSTS} do
      if heads[line] and (heads[line] ~= jobId or turns[line] == jobId) then break end
      local first = redis.call('ZRANGE', line, 0, 1, 'WITHSCORES')
      if first[1] == jobId then
        heads[line], turns[line] = jobId, jobId
        if tonumber(first[2]) < 0 then break end
        redis.call('ZADD', line, '-' .. string.format('%.0f', first[2]), jobId)
        -- Should this one go without an outcome, the next one sees it soon, however long it was to wait.
        if first[3] then
          redis.call('ZADD', scheduled, 'XX', 'LT', string.format('%.0f', now() + ${LOOK_MS}), first[3])
        end
      elseif isThere(base, group, first[1]) then
        redis.call('PEXPIRE', line, '${KEPT_MS}')
        heads[line] = first[1]
      else
        unlined(base, group, line, first[1])
      end
    end
    return heads[line]
  end
  local function turnOf(line, jobId, position)
    local head = headOf(line, jobId)
    if head == jobId then return 'granted' end
    local before = head and redis.call('ZRANK', line, jobId)
    if not before or before == 0 then return 'again' end
    local previous = redis.call('ZRANGE', line, before - 1, before - 1)[1]
    -- One that goes away to wait takes those behind it along: here they would hear nothing of its turn.
    local isHere = states[previous] ~= 'behind' and ownerOf(previous) == me
    return isHere and 'here' or 'behind', head, before, position
  end
  local told = {}
  for n, ask in ipairs(asks) do
    local id, deliveries, jobId, key = unpack(ask)
    local pending = pendingAt(id)
    local state, first, before, position = 'lost', nil, nil, nil
    if pending and pending[2] == me and pending[4] == deliveries then
      local line, ok = lineOf(base, group, key), true
      owners[jobId] = me
      if less(cursor, id) then
        state = 'again'
      else
        ok, state, first, before, position = pcall(function()
          lineUp(line, jobId, id, false)
          return turnOf(line, jobId, positions[id])
        end)
      end
      if not ok then state, first = 'broken', nil end
      states[jobId] = state
    end
    told[n] = first and {state, first, before, position} or state
  end
  if cursor ~= kept[1] then redis.call('HSET', order, cursorField, cursor) end
  if given and string.format('%.0f', given) ~= kept[2] then
    redis.call('HSET', order, ':position', string.format('%.0f', given))
  end
  return told`,
)
