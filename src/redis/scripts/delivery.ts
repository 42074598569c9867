import { RELEASE } from './holder.ts'
import { FLOOR, LESS, NOW, RECORD_OUTCOMES } from './lua.ts'
import { ORDER } from './order.ts'
import { REPLY } from './reply.ts'
import { script } from './script.ts'

/**
 * The life of a delivery after it was read: begun, renewed, settled, handed back. The fence is (consumer, delivery count):
 * the owner alone is none, for a worker whose timed-out handler still runs owns the entry again after its own claim.
 */

/** What a script does that settles completions and more, in Lua. */
export interface MoreToComplete {
  /** How many of its last keys are its own. */
  readonly keys: string
  /** Where the last argument of the last bucket is. */
  readonly lastAt: string
  /** Done once, before the first bucket. */
  readonly prepare: string
  /** Done before the ack of a job, whose entry is `ids[i]`; it may leave the job out, which `unless` then says. */
  readonly before: string
  readonly unless: string
  /** What is answered behind what settleCompleted does. */
  readonly answer: string
}

/** `listed(text)`: the ids of a bucket, and how many there are. */
const LISTED = `
  local function listed(text)
    local ids, count = {}, 0
    for ms, seqs in text:gmatch('(%d+)-([%d,]+)') do
      for seq in seqs:gmatch('%d+') do
        count = count + 1
        ids[count] = ms .. '-' .. seq
      end
    end
    return ids, count
  end`

const NO_MORE: MoreToComplete = { keys: '0', lastAt: '#ARGV', prepare: '', before: '', unless: '', answer: '' }

/**
 * Acks entries that were completed, or skipped since the group does not want them, and adds them to their group's tally, in one step, so
 * that the tally never says more or less than what left the pending list. A completion is taken from anyone who still finds the entry pending: the work is done. What
 * is not pending any more is counted as late, unless this batch is a resend, where it may be our own first try.
 *
 * Ids that share their time come as 1795245552380-0,1,2, and so on: one argument for a bucket, a fraction of the bytes, and what a
 * client spends on each argument is most of what it spends on settling.
 *
 * On the redelivery stream each job's place in the index ends with its ack, and only with that: a completion that comes late
 * must not hide where the job is now. The job ids follow the entry ids, in the same order; '' where they are the same.
 *
 * Jobs that have something of their own to end, such as a uniqueness key, their turn, notes or an answer that somebody waits for, come in
 * buckets of their own, with that as JSON,
 * and are acked one by one: only what was pending lets go of its key. A late completion is of a job that may be tried again, and
 * hold it still.
 *
 * Where the group records outcomes, the ids are acked one by one: only what was pending gets its line, in the same step. The
 * lines are written together.
 *
 * XACK comes first: under OOM a first harmless write lets the rest of a script pass, and settling must get through.
 * Returns how many completions were late, and how many skipped jobs were settled already: these did not run, and are no duplicates; and 1 if
 * a job that waited for its turn is due now.
 */
export const completing = ({ keys, lastAt, prepare, before, unless, answer } = NO_MORE) =>
  `${FLOOR}${LESS}${NOW}${RECORD_OUTCOMES}${RELEASE}${ORDER}${REPLY}${LISTED}
  -- KEYS source settings index tally... outcomes...
  -- ARGV group isStream(1|0) resent(1|0) tallyTtlMs, then per bucket: outcome(completed|skipped) tally minute ids
  --      jobIds('' = the same) owns('' = none has anything of its own, else JSON: an object per job)
  local source, settings, index, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
  local isStream, resent, tallyTtlMs = ARGV[2] == '1', ARGV[3] == '1', ARGV[4]
  local at, late, skippedLate, woken = 5, 0, 0, 0
  local hours, recordedAt = (#KEYS - 3 - ${keys}) / 2, isRecording(settings, group) and now()
  local lastAt = ${lastAt}${prepare}
  while at <= lastAt do
    local outcome, tally, minute = ARGV[at], KEYS[3 + tonumber(ARGV[at + 1])], ARGV[at + 2]
    local outcomes = KEYS[3 + hours + tonumber(ARGV[at + 1])]
    local line = recordedAt and outcome .. ' ' .. string.format('%.0f', recordedAt)
    local ids, count = listed(ARGV[at + 3])
    local acked = 0
    if isStream and not recordedAt and ARGV[at + 5] == '' then
      acked = redis.call('XACK', source, group, unpack(ids))
    else
      local jobIds, lines = ARGV[at + 4] == '' and ids or listed(ARGV[at + 4]), {}
      local owns = ARGV[at + 5] ~= '' and cjson.decode(ARGV[at + 5]) or {}
      for i = 1, count do${before}
        if ${unless}redis.call('XACK', source, group, ids[i]) == 1 then
          acked = acked + 1
          if not isStream and redis.call('HGET', index, jobIds[i]) == 'redelivery ' .. ids[i] then
            redis.call('HDEL', index, jobIds[i])
          end
          local own = owns[i]
          if own and own.unique then release(uniqueIn(baseOf(settings), own.unique), jobIds[i], group, true) end
          if own and own.key and endTurn(baseOf(settings), group, own.key, jobIds[i]) then woken = 1 end
          if own and own.reply then
            tellEnd(baseOf(settings), group, jobIds[i], own.reply, own.reply.state, now(), own.reply.body)
          end
          if own and own.notes then redis.pcall('PEXPIRE', ofGroup(baseOf(settings), group, 'notes:' .. jobIds[i]), 0) end
          if line then
            lines[#lines + 1] = jobIds[i]
            lines[#lines + 1] = line
          end
        end
      end
      if line then recordAll(outcomes, lines, tallyTtlMs) end
    end
    -- The acks are done: a tally that cannot be written must not have them sent again, and counted as late.
    if acked > 0 and redis.pcall('HINCRBY', tally, minute .. ':' .. outcome, acked) == acked then
      redis.call('PEXPIRE', tally, tallyTtlMs)
    end
    if acked < count and not resent and outcome == 'skipped' then
      skippedLate = skippedLate + count - acked
    elseif acked < count and not resent then
      redis.pcall('HINCRBY', tally, minute .. ':late', count - acked)
      late = late + count - acked
    end
    at = at + 6
  end
  if isStream and redis.call('EXISTS', source) == 1 then
    local ok, floor = pcall(floorOf, source, group)
    if ok and floor then redis.call('HSET', settings, 'group:' .. group .. ':floor', floor) end
  end
  return {late, skippedLate, woken${answer}}`

export const settleCompleted = script('settleCompleted', completing())

/**
 * Counts the delivery of claimed entries and brings their fields, before their handlers start. Counting in the claim would
 * charge a job for a reply that got lost. Fenced; a second try finds the count raised already and changes nothing more.
 *
 * Stops after 1 MiB of fields, so the answer may be shorter than the question; the rest is asked again. An entry that was
 * deleted from the stream stays pending: settleGone acks it, with its tally.
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
 * Counts entries that were deleted from the stream while they were pending: a job that is gone without an outcome of its own
 * must at least be seen as gone. What is still pending is acked in the same step, so that nobody else finds it again; isAcked
 * says that a claim has taken it out of the pending list already. An entry that is there after all is left alone.
 * Returns how many were counted.
 */
export const settleGone = script(
  'settleGone',
  `${NOW}${RECORD_OUTCOMES}
  -- KEYS source settings tally... outcomes... | ARGV group tallyTtlMs isAcked(1|0), then per entry: id tally minute
  local source, settings, group, ttlMs, isAcked = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3] == '1'
  local hours, recordedAt = (#KEYS - 2) / 2, isRecording(settings, group) and now()
  local counted = 0
  redis.call('XACK', source, group, '0-1') -- under OOM a first harmless write lets the others pass
  for at = 4, #ARGV, 3 do
    local id, tally, outcomes = ARGV[at], KEYS[2 + tonumber(ARGV[at + 1])], KEYS[2 + hours + tonumber(ARGV[at + 1])]
    local isGone = not redis.call('XRANGE', source, id, id)[1]
    if isGone and (isAcked or redis.call('XACK', source, group, id) == 1) then
      counted = counted + 1
      if redis.pcall('HINCRBY', tally, ARGV[at + 2] .. ':gone', 1) == 1 then redis.call('PEXPIRE', tally, ttlMs) end
      if recordedAt then record(outcomes, id, 'gone', recordedAt, ttlMs) end
    end
  end
  return counted`,
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
