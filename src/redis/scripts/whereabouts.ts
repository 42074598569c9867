import { GROUPS, LESS, WALK } from './lua.ts'
import { script } from './script.ts'

/**
 * `jobOf(entry)`: the job id of an entry: the first field `id` if that is one, else its own. As a worker
 * takes it: a field that is no id in 64 bits is none, and the entry dies under its own id.
 */
export const JOB_OF = `
  local function fits(half) return #half < 20 or (#half == 20 and half <= '18446744073709551615') end
  local function jobOf(entry)
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'id' then
        local ms, seq = entry[2][i + 1]:match('^(%d+)%-(%d+)$')
        return ms and fits(ms) and fits(seq) and entry[2][i + 1] or entry[1]
      end
    end
    return entry[1]
  end`

/**
 * `whereIs(keys, group, jobId, entryId)`: where one group has a job: 'scheduled', 'dead' (and the id of the dead letter),
 * 'redelivery' or 'waiting' (to be delivered there or from the stream, for the first time or handed back), 'running' (a
 * worker has it), 'finished', 'unknown'. keys = {stream, redelivery, scheduled, scheduledJobs, dead, index}. entryId is its
 * entry in the stream, '' if that is not known. Also returns whether the group is there, and whether the entry is.
 */
export const WHERE = `${GROUPS}${LESS}${JOB_OF}
  local function entryAt(key, id) return redis.call('XRANGE', key, id, id)[1] end
  local function placeIn(key, group, id)
    local found = groupsOf(key)[group]
    local entry = entryAt(key, id)
    if not found then return 'unknown', false, entry end
    local pending = redis.call('XPENDING', key, group, id, id, 1)[1]
    if pending then return pending[2] == ':handback' and 'waiting' or 'running', true, entry end
    if not less(found['last-delivered-id'], id) then return 'finished', true, entry end
    return entry and 'waiting' or 'unknown', true, entry
  end
  local function whereIs(keys, group, jobId, entryId)
    local stream, redelivery, scheduled, dead = keys[1], keys[2], keys[3], keys[5]
    local known = redis.call('HGET', keys[6], jobId) or ''
    local place, there, entry = 'unknown', groupsOf(stream)[group] ~= nil, nil
    if entryId ~= '' then
      place, there, entry = placeIn(stream, group, entryId)
      -- An entry may carry the id of another job: then that id is what its workers know it by.
      if entry and jobOf(entry) ~= jobId then place, entry = 'unknown', nil end
    end
    if redis.call('ZSCORE', scheduled, jobId) then return 'scheduled', '', there, entry end
    local deadId = known:match('^dead (%d+%-%d+)$')
    if deadId and redis.call('XRANGE', dead, deadId, deadId)[1] then return 'dead', deadId, there, entry end
    local again = known:match('^redelivery (%d+%-%d+)$')
    if again then
      -- A group that is gone from the redelivery stream alone is made again at its beginning.
      local onRedelivery, isRead, copy = placeIn(redelivery, group, again)
      if onRedelivery == 'waiting' or (copy and not isRead) then return 'redelivery', '', there, entry end
      if onRedelivery == 'running' then return 'running', '', there, entry end
      if place == 'unknown' then place = onRedelivery end
    end
    return place, '', there, entry
  end`

/** Looks where a group has a job. Returns {place, 1 if its entry is in the stream}; writes nothing. */
export const locateJob = script(
  'locateJob',
  `${WHERE}
  -- KEYS stream redelivery scheduled scheduledJobs dead index | ARGV group jobId entryId
  local place, _, _, entry = whereIs(KEYS, ARGV[1], ARGV[2], ARGV[3])
  return {place, entry and 1 or 0}`,
)

/**
 * Looks for the entry of a job that was published with a delay: it has an id of its own, and came into the stream after the
 * job had been given its. At most 500 entries or 1 MiB a call.
 * Returns {'found', entry id}, {'absent'} when the end was reached, or {'more', where to go on}.
 */
export const findEntry = script(
  'findEntry',
  `${WHERE}${WALK}
  -- KEYS stream | ARGV from jobId
  local jobId, found = ARGV[2], nil
  local function look(entry)
    if not found and jobOf(entry) == jobId then found = entry[1] end
    return found
  end
  local next, refusal = walk('XRANGE', KEYS[1], ARGV[1], '+', 500, look)
  if found then return {'found', found} end
  if refusal then return refusal end
  return next and {'more', next} or {'absent'}`,
)
