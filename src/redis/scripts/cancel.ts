import { KEY_NAMES } from '../keys.ts'
import { KEY_IN, RELEASE } from './holder.ts'
import { NOW, RECORD_OUTCOMES } from './lua.ts'
import { ORDER } from './order.ts'
import { REPLY } from './reply.ts'
import { RECORD } from './scheduled.ts'
import { script } from './script.ts'
import { WHERE } from './whereabouts.ts'

/**
 * `mark(cancelled, member, most, keepMs)`: notes that a job is cancelled, for workers that have it or will get it. Scores
 * rise strictly, so that a worker that has read up to one never misses the next. What is older than keepMs goes, at most
 * 500 a call. False, and nothing is written, if there are too many.
 */
export const MARK = `${NOW}
  local function mark(cancelled, member, most, keepMs)
    local at = now()
    local old = redis.call('ZRANGEBYSCORE', cancelled, '-inf', string.format('%.0f', at - keepMs), 'LIMIT', 0, 500)
    local has = redis.call('ZSCORE', cancelled, member)
    if not has and redis.call('ZCARD', cancelled) - #old >= most then return false end
    redis.call('ZREM', cancelled, '', unpack(old)) -- under OOM a first harmless write lets the next pass
    local top = redis.call('ZREVRANGE', cancelled, 0, 0, 'WITHSCORES')[2]
    redis.call('ZADD', cancelled, string.format('%.0f', math.max(at, (tonumber(top) or 0) + 1)), member)
    return true
  end`

/**
 * Takes a delayed publish out before it comes into the stream. In one step: promotion may be at it. Whoever asked for its result is
 * told in the same one. Returns how many.
 */
export const cancelDelayed = script(
  'cancelDelayed',
  `${KEY_NAMES}${NOW}${RECORD}${REPLY}
  -- KEYS scheduled scheduledJobs settings | ARGV jobId
  local removed = redis.call('ZREM', KEYS[1], ARGV[1])
  if removed == 1 then
    local _, flat = recordOf(redis.call('HGET', KEYS[2], ARGV[1]))
    redis.call('HDEL', KEYS[2], ARGV[1])
    local reply = flat and replyIn(flat)
    if reply then tellEnd(baseOf(KEYS[3]), nil, ARGV[1], reply, 'cancelled', now(), '') end
  end
  return removed`,
)

/**
 * Cancels a job for one group, wherever that has it: what is scheduled or dead goes; what a worker has, or will get, is
 * noted as cancelled, and the worker ends it. After a rewind a job can be both: it is dead, and will be delivered again. Looking and doing are one step: between two a retry or a promotion could
 * carry the job past the note.
 *
 * member is the job id, or 'jobId group' for this group alone. With blind = 1 the entry could not be found, and the job is
 * noted unless the group has it elsewhere.
 * Returns {place, 1 if cancelled | 0 | -1 if too many are noted, 1 if its entry is in the stream}, places as in whereIs.
 */
export const cancelInGroup = script(
  'cancelInGroup',
  `${WHERE}${MARK}${RECORD}${RECORD_OUTCOMES}${RELEASE}${KEY_IN}${ORDER}${REPLY}
  -- KEYS stream redelivery scheduled scheduledJobs dead index cancelled tally settings outcomes
  -- ARGV group jobId entryId member blind minute tallyTtlMs most keepMs
  local group, jobId, member, most, keepMs = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[8]), tonumber(ARGV[9])
  local place, deadId, there, entry = whereIs(KEYS, group, jobId, ARGV[3])
  local exists = entry and 1 or 0
  local function count(outcome, jobs)
    redis.call('HDEL', KEYS[6], jobId)
    redis.call('HINCRBY', KEYS[8], ARGV[6] .. ':' .. outcome, jobs)
    redis.call('PEXPIRE', KEYS[8], ARGV[7])
    if isRecording(KEYS[9], group) then record(KEYS[10], jobId, outcome, now(), ARGV[7]) end
    return {place, 1, exists}
  end
  -- A rewind has a job delivered again beside its retry or its dead letter.
  if (place == 'scheduled' or place == 'dead') and entry then
    local beside = placeIn(KEYS[1], group, entry[1])
    if (beside == 'waiting' or beside == 'running') and not mark(KEYS[7], member, most, keepMs) then
      return {place, -1, exists}
    end
  end
  if place == 'scheduled' then
    local _, flat, entries = recordOf(redis.call('HGET', KEYS[4], jobId))
    redis.call('ZREM', KEYS[3], jobId)
    redis.call('HDEL', KEYS[4], jobId)
    -- It is there no more, but a key that is held for a time of its own could not tell that from a completion.
    local unique = flat and keyIn(flat)
    if unique then release(uniqueIn(baseOf(KEYS[9]), unique), jobId, group, false) end
    -- Jobs of its key need not wait for it any more.
    local key = flat and orderKeyIn(flat)
    if key then endTurn(KEYS[9]:sub(1, -10), group, key, jobId) end
    local reply = flat and replyIn(flat, group)
    if reply then tellEnd(baseOf(KEYS[9]), group, jobId, reply, 'cancelled', now(), '') end
    return count('cancelled', entries or 1)
  end
  if place == 'dead' then
    redis.call('XDEL', KEYS[5], deadId)
    return count('discarded', 1)
  end
  if place == 'finished' or (place == 'unknown' and not (there and ARGV[5] == '1')) then return {place, 0, exists} end
  return {place, mark(KEYS[7], member, most, keepMs) and 1 or -1, exists}`,
)

/**
 * Cancels a job of a stream that no group reads yet: the first group would begin with it. Returns {place, …} as above, or
 * {'groups'} if there is a group by now.
 */
export const cancelUnread = script(
  'cancelUnread',
  `${WHERE}${MARK}
  -- KEYS stream cancelled | ARGV jobId entryId blind most keepMs
  local jobId, entryId, blind = ARGV[1], ARGV[2], ARGV[3] == '1'
  local _, names = groupsOf(KEYS[1])
  if #names > 0 then return {'groups'} end
  local entry = entryId ~= '' and redis.call('XRANGE', KEYS[1], entryId, entryId)[1]
  if entry and jobOf(entry) ~= jobId then entry = nil end
  if not entry and not blind then return {'unknown', 0, 0} end
  local marked = mark(KEYS[2], jobId, tonumber(ARGV[4]), tonumber(ARGV[5]))
  return {entry and 'waiting' or 'unknown', marked and 1 or -1, entry and 1 or 0}`,
)
