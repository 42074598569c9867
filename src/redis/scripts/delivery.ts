import { FLOOR, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * The life of a delivery after it was read: begun, renewed, settled, handed back. The fence is (consumer, delivery count):
 * the owner alone is none, for a worker whose timed-out handler still runs owns the entry again after its own claim.
 */

/**
 * Acks completed entries and adds them to their group's tally, in one step, so that the tally never says more or less than
 * what left the pending list. A completion is taken from anyone who still finds the entry pending: the work is done. What
 * is not pending any more is counted as late, unless this batch is a resend, where it may be our own first try.
 *
 * Ids that share their time come as 1795245552380-0,1,2, and so on: one argument for a bucket, a fraction of the bytes, and what a
 * client spends on each argument is most of what it spends on settling.
 *
 * XACK comes first: under OOM a first harmless write lets the rest of a script pass, and settling must get through.
 * Returns how many were late.
 */
export const settleCompleted = script(
  'settleCompleted',
  `${FLOOR}
  -- KEYS source settings tally... | ARGV group floor(1|0) resent(1|0) tallyTtlMs, then per bucket: tally minute ids
  local source, settings, group = KEYS[1], KEYS[2], ARGV[1]
  local resent, tallyTtlMs = ARGV[3] == '1', ARGV[4]
  local at, late = 5, 0
  while at <= #ARGV do
    local tally, minute = KEYS[2 + tonumber(ARGV[at])], ARGV[at + 1]
    local ids, count = {}, 0
    for ms, seqs in ARGV[at + 2]:gmatch('(%d+)-([%d,]+)') do
      for seq in seqs:gmatch('%d+') do
        count = count + 1
        ids[count] = ms .. '-' .. seq
      end
    end
    local acked = redis.call('XACK', source, group, unpack(ids))
    if acked > 0 and redis.call('HINCRBY', tally, minute .. ':completed', acked) == acked then
      redis.call('PEXPIRE', tally, tallyTtlMs)
    end
    if acked < count and not resent then
      redis.call('HINCRBY', tally, minute .. ':late', count - acked)
      late = late + count - acked
    end
    at = at + 3
  end
  if ARGV[2] == '1' and redis.call('EXISTS', source) == 1 then
    local ok, floor = pcall(floorOf, source, group)
    if ok and floor then redis.call('HSET', settings, 'group:' .. group .. ':floor', floor) end
  end
  return late`,
)

/**
 * Moves one entry to its group's dead-letter stream: provenance, raw fields, index, tally, ack, in one step, so that the
 * job is at every instant either pending or dead. The raw fields are copied inside Redis and never pass through a client,
 * which would bend bytes that are not UTF-8. Over 1 000 fields they are packed into one: unpack has a limit, and an entry
 * that cannot be buried would hold the watermark for ever.
 *
 * Fenced. Returns {'dead', dead id}, {'stale'} if the delivery is no longer ours, {'gone'} if the entry was deleted.
 */
export const buryDelivery = script(
  'buryDelivery',
  `${NOW}
  -- KEYS source dead index tally | ARGV group me id deliveries minute tallyTtlMs jobId, then provenance: name value ...
  local source, dead, index, tally = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
  local group, me, id, minute, jobId = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[7]
  local pending = redis.call('XPENDING', source, group, id, id, 1)[1]
  if not pending or pending[2] ~= me or pending[4] ~= tonumber(ARGV[4]) then return {'stale'} end
  redis.call('XACK', source, group, '0-1')
  local function count(outcome)
    redis.call('HINCRBY', tally, minute .. ':' .. outcome, 1)
    redis.call('PEXPIRE', tally, ARGV[6])
  end
  local entry = redis.call('XRANGE', source, id, id)[1]
  if not entry then
    redis.call('XACK', source, group, id)
    count('gone')
    return {'gone'}
  end
  local values, raw = {}, entry[2]
  for i = 8, #ARGV do values[#values + 1] = ARGV[i] end
  values[#values + 1] = 'dead-at'
  values[#values + 1] = string.format('%.0f', now())
  values[#values + 1] = 'dead-fields'
  values[#values + 1] = #raw / 2
  if #raw > 2000 then
    values[#values + 1] = 'dead-packed'
    values[#values + 1] = cmsgpack.pack(raw)
  else
    for i = 1, #raw do values[#values + 1] = raw[i] end
  end
  local deadId = redis.call('XADD', dead, '*', unpack(values))
  redis.call('HSET', index, jobId, 'dead ' .. deadId)
  count('dead')
  redis.call('XACK', source, group, id)
  return {'dead', deadId}`,
)

/**
 * Counts the delivery of claimed entries and brings their fields, before their handlers start. Counting in the claim would
 * charge a job for a reply that got lost. Fenced; a second try finds the count raised already and changes nothing more.
 *
 * Stops after 1 MiB of fields, so the answer may be shorter than the question; the rest is asked again.
 * Returns {state, fields} per entry, state = 'ok' | 'lost' | 'gone'.
 */
export const beginDeliveries = script(
  'beginDeliveries',
  `
  -- KEYS source | ARGV group me, then per entry: id deliveries
  local source, group, me = KEYS[1], ARGV[1], ARGV[2]
  local begun, bytes = {}, 0
  for at = 3, #ARGV, 2 do
    if bytes > 1048576 then break end
    local id, before = ARGV[at], tonumber(ARGV[at + 1])
    local pending = redis.call('XPENDING', source, group, id, id, 1)[1]
    if not pending or pending[2] ~= me or (pending[4] ~= before and pending[4] ~= before + 1) then
      begun[#begun + 1] = {'lost', {}}
    else
      local entry = redis.call('XRANGE', source, id, id)[1]
      if not entry then
        redis.call('XACK', source, group, id)
        begun[#begun + 1] = {'gone', {}}
      else
        redis.call('XCLAIM', source, group, me, 0, id, 'RETRYCOUNT', before + 1, 'JUSTID')
        begun[#begun + 1] = {'ok', entry[2]}
        for i = 1, #entry[2] do bytes = bytes + #entry[2][i] end
      end
    end
  end
  return begun`,
)

/**
 * Gives entries back to the group at once: the hand-back consumer takes them and the next claim tick looks there first.
 * The delivery that ends here is taken off the count, so that a stop or a deploy costs nothing. Fenced; at most 200 a call.
 * Giving back by an idle time instead was tried: three drains later the job was dead.
 * Returns how many were handed back.
 */
export const handBack = script(
  'handBack',
  `
  -- KEYS source | ARGV group me, then per entry: id deliveries newDeliveries
  local source, group, me = KEYS[1], ARGV[1], ARGV[2]
  local handed = 0
  for at = 3, #ARGV, 3 do
    local id = ARGV[at]
    local pending = redis.call('XPENDING', source, group, id, id, 1)[1]
    if pending and pending[2] == me and pending[4] == tonumber(ARGV[at + 1]) then
      redis.call('XCLAIM', source, group, ':handback', 0, id, 'RETRYCOUNT', ARGV[at + 2], 'JUSTID')
      handed = handed + 1
    end
  end
  return handed`,
)

/**
 * Renews the leases of the entries a worker holds, and tells which of them are no longer its own. One ranged XPENDING of
 * the own consumer and one variadic XCLAIM cost half of a check per id; what is younger than youngMs needs no renewal. A
 * plain XCLAIM without the check would take an entry back from its new owner. ids come in rising order, at most 400 a call;
 * an expected count of 0 accepts any (prefetched, its count is being raised).
 *
 * Returns the positions, from 1, of the ids that are lost.
 */
export const renewLeases = script(
  'renewLeases',
  `
  -- KEYS source | ARGV group me youngMs, then per entry: id deliveries
  local source, group, me, youngMs = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
  local mine = {}
  local scanned = redis.call('XPENDING', source, group, ARGV[4], ARGV[#ARGV - 1], 500, me)
  for _, entry in ipairs(scanned) do mine[entry[1]] = entry end
  local renewed, lost = {}, {}
  for at = 4, #ARGV, 2 do
    local id, expected = ARGV[at], tonumber(ARGV[at + 1])
    local entry = mine[id]
    if not entry and #scanned == 500 then
      entry = redis.call('XPENDING', source, group, id, id, 1)[1]
      if entry and entry[2] ~= me then entry = nil end
    end
    if not entry or (expected > 0 and entry[4] ~= expected) then lost[#lost + 1] = (at - 2) / 2
    elseif entry[3] >= youngMs then renewed[#renewed + 1] = id end
  end
  if #renewed > 0 then
    renewed[#renewed + 1] = 'JUSTID'
    redis.call('XCLAIM', source, group, me, 0, unpack(renewed))
  end
  return lost`,
)
