import { KEY_IN, RELEASE } from './holder.ts'
import { FLOOR, LESS, NOW, RECORD_OUTCOMES } from './lua.ts'
import { ORDER } from './order.ts'
import { REPLY } from './reply.ts'
import { script } from './script.ts'

/**
 * Writes the outcomes of deliveries that did not complete: tried again later, put off, dead, or cancelled. For each of them the fence,
 * the move, the index, the tally and the ack are one step, so that the job is at every instant in exactly one place: pending,
 * scheduled, dead or settled. The fence is (consumer, delivery count): the owner alone is none, for a worker whose
 * timed-out handler still runs owns the entry again after its own claim.
 *
 * The raw fields are copied inside Redis and never pass through a client, which would bend bytes that are not UTF-8.
 *
 * If somebody has cancelled the job meanwhile, it is settled as cancelled, whatever its last run came to.
 *
 * - retry: fields without id, attempt, first-failed, at, trace-last, waited-since and past-deliveries, then those anew, go packed
 *   beside the due time; a trace-last only if there is one, and none of the last two: a job that has run waits for nobody. An id that is
 *   scheduled already is of a job that is there twice: a rewind had it delivered again beside its retry, or two entries claim
 *   to be one job. The record then holds both, and both come back at the later of the two times, so that neither is lost
 *   and neither runs before its own. Only where that would make a record of more than a MiB beyond one entry, or the other
 *   one was set aside, the delivery stays pending, and what it was charged is taken off: 'twin'. It is claimed when its
 *   lease is over. An entry too wide to be appended again by unpack changes nothing: 'wide'.
 * - wait: the same without a failure: all fields but id, at and waited-since stay, but for those that the caller has anew. The job
 *   has not run, and what it has of attempts and of its first failure is as it was. A waited-since is of waiting for a worker that
 *   knows it: one that puts it off for a limit does, and the next that does not must not count the time that the limit took.
 *   Deliveries before this one had no outcome, and a new entry has none: past-deliveries says how many, or a job that takes its
 *   workers down would begin anew with each wait.
 * - dead: provenance, raw fields. Over 1 000 fields they are packed into one: unpack has a limit, and an entry that cannot be
 *   buried would hold the watermark for ever.
 *
 * - retry-turned: a retry that gives its turn away meanwhile.
 *
 * A job that is dead or cancelled lets go of its uniqueness key, if it still holds it, and of its turn; one that is tried again
 * keeps both. Whoever asked for its result is told, and told again if it is redriven. Notes of a cancelled one go; a dead one keeps
 * them, for a redrive to go on from.
 *
 * A resend may find what its first try did: what is not pending any more is 'done' then, and not 'stale'.
 * Stops after 1 MiB of fields, so the answer may be shorter than the question; the rest is asked again. XACK comes first:
 * under OOM a first harmless write lets the rest of a script pass, and settling must get through.
 *
 * Returns a word per entry: 'retried' | 'waits' | 'dead' | 'cancelled' | 'gone' (deleted from the stream) | 'stale' | 'done' | 'twin' |
 * 'wide'; and 'woken' behind them where a job that waited for its turn is due now.
 */
export const settleFenced = script(
  'settleFenced',
  `${FLOOR}${LESS}${NOW}${RECORD_OUTCOMES}${RELEASE}${KEY_IN}${ORDER}${REPLY}
  -- KEYS source dead index retries retryJobs cancelled settings tally... outcomes...
  -- ARGV group me isStream(1|0) resent(1|0) tallyTtlMs, then per entry: id deliveries tally minute jobId kind count arg...
  local source, dead, index, retries, retryJobs, cancelled, settings = unpack(KEYS, 1, 7)
  local group, me, isStream, resent, ttlMs = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4] == '1', ARGV[5]
  local function check(key, wanted)
    local kind = redis.call('TYPE', key).ok
    if kind ~= wanted and kind ~= 'none' then return redis.error_reply('WRONGTYPE a key of the group holds a ' .. kind) end
  end
  local wrong = check(dead, 'stream') or check(index, 'hash') or check(retries, 'zset') or check(retryJobs, 'hash')
    or check(cancelled, 'zset') or check(settings, 'hash')
  if wrong then return wrong end
  redis.call('XACK', source, group, '0-1')
  local at, bytes, words, woken = now(), 0, {}, false
  local ms = string.format('%.0f', at)
  local hours, recording = (#KEYS - 7) / 2, isRecording(settings, group)
  local renamed = {
    id = true, attempt = true, ['first-failed'] = true, at = true, ['trace-last'] = true, ['waited-since'] = true,
    ['past-deliveries'] = true
  }

  local function settled(entry, outcome)
    local tally = KEYS[7 + tonumber(entry.tally)]
    -- A tally that cannot be written must not leave the job in two places: by now it has been moved.
    local counted = redis.pcall('HINCRBY', tally, entry.minute .. ':' .. outcome, 1)
    if counted == 1 then redis.call('PEXPIRE', tally, ttlMs) end
    redis.call('XACK', source, group, entry.id)
    if recording and outcome ~= 'retried' and outcome ~= 'waited' then
      record(KEYS[7 + hours + tonumber(entry.tally)], entry.jobId, outcome, at, ttlMs)
    end
    return outcome
  end
  local function forgotten(entry, outcome)
    if not isStream and redis.call('HGET', index, entry.jobId) == 'redelivery ' .. entry.id then
      redis.call('HDEL', index, entry.jobId)
    end
    return settled(entry, outcome)
  end
  local function isCancelled(jobId)
    return redis.call('ZSCORE', cancelled, jobId) or redis.call('ZSCORE', cancelled, jobId .. ' ' .. group)
  end
  -- A record is an error text, and then the fields of each entry that it will be.
  local function joined(kept, fields)
    local ok, record = pcall(cmsgpack.unpack, kept)
    if not ok or type(record) ~= 'table' or #kept > 1048576 or #record > 16 then return nil end
    record[#record + 1] = fields
    return record
  end
  -- The fields of an entry without those that are named, and own behind them.
  local function replaced(raw, names, own)
    local fields = {}
    for i = 1, #raw, 2 do
      if not names[raw[i]] then
        fields[#fields + 1] = raw[i]
        fields[#fields + 1] = raw[i + 1]
      end
    end
    for i = 1, #own do fields[#fields + 1] = own[i] end
    return fields
  end
  local function schedule(entry, delayMs, text, fields)
    local due, record = at + delayMs, {text, fields}
    local other = redis.call('ZSCORE', retries, entry.jobId)
    local kept = other and redis.call('HGET', retryJobs, entry.jobId)
    if kept then
      record, due = joined(kept, fields), math.max(due, tonumber(other))
      if not record or due == math.huge then
        redis.call('XCLAIM', source, group, me, 0, entry.id, 'RETRYCOUNT', math.max(0, entry.deliveries - 1), 'JUSTID')
        return 'twin'
      end
    end
    redis.call('ZADD', retries, string.format('%.0f', due), entry.jobId)
    redis.call('HSET', retryJobs, entry.jobId, cmsgpack.pack(record))
    redis.call('HSET', index, entry.jobId, 'scheduled')
  end
  local function retry(entry, raw, args)
    if #raw > 7000 then return 'wide' end
    local own = {'id', entry.jobId, 'attempt', args[2], 'first-failed', args[3] == '' and ms or args[3]}
    if args[5] then
      own[#own + 1] = 'trace-last'
      own[#own + 1] = args[5]
    end
    return schedule(entry, tonumber(args[1]), args[4], replaced(raw, renamed, own)) or settled(entry, 'retried')
  end
  local function wait(entry, raw, args)
    if #raw + #args > 7000 then return 'wide' end
    local names = {id = true, at = true, ['waited-since'] = true, ['past-deliveries'] = true}
    local own = {'id', entry.jobId}
    if entry.deliveries > 1 then
      own[#own + 1] = 'past-deliveries'
      own[#own + 1] = string.format('%.0f', entry.deliveries - 1)
    end
    for i = 3, #args do
      own[#own + 1] = args[i]
      if i % 2 == 1 then names[args[i]] = true end
    end
    local refusal = schedule(entry, tonumber(args[1]), args[2], replaced(raw, names, own))
    if refusal then return refusal end
    settled(entry, 'waited')
    -- The one that it waited for may have ended since it asked, and found nobody in the scheduled set to be told.
    local key = orderKeyIn(raw)
    if key then
      local ok, isDue = pcall(giveOn, baseOf(settings), group, lineOf(baseOf(settings), group, key))
      if ok and isDue then woken = true end
    end
    return 'waits'
  end
  local function bury(entry, raw, args)
    local values = args
    values[#values + 1] = 'dead-at'
    values[#values + 1] = ms
    values[#values + 1] = 'dead-fields'
    values[#values + 1] = #raw / 2
    if #raw > 2000 then
      values[#values + 1] = 'dead-packed'
      values[#values + 1] = cmsgpack.pack(raw)
    else
      for i = 1, #raw do values[#values + 1] = raw[i] end
    end
    redis.call('HSET', index, entry.jobId, 'dead ' .. redis.call('XADD', dead, '*', unpack(values)))
    return settled(entry, 'dead')
  end
  -- It is in order no more, for now: its turn is the next one's.
  local function turned(entry, raw, outcome)
    local key = orderKeyIn(raw)
    if key and endTurn(baseOf(settings), group, key, entry.jobId) then woken = true end
    return outcome
  end
  -- The job is at its end, for this group.
  local function ended(entry, raw, outcome, args)
    local key = keyIn(raw)
    if key then release(uniqueIn(baseOf(settings), key), entry.jobId, group, false) end
    local reply = replyIn(raw, group)
    if reply then
      -- As provenance has them, in its fixed order.
      local why = args and {reason = args[2], attempts = tonumber(args[12]), error = args[18], message = args[20]}
      tellEnd(baseOf(settings), group, entry.jobId, reply, outcome, at, why and cjson.encode(why) or '')
    end
    if outcome == 'cancelled' then redis.pcall('PEXPIRE', ofGroup(baseOf(settings), group, 'notes:' .. entry.jobId), 0) end
    return turned(entry, raw, outcome)
  end
  local function settle(entry, kind, args)
    local pending = redis.call('XPENDING', source, group, entry.id, entry.id, 1)[1]
    if not pending then return resent and 'done' or 'stale' end
    if pending[2] ~= me or pending[4] ~= entry.deliveries then return 'stale' end
    local found = redis.call('XRANGE', source, entry.id, entry.id)[1]
    if not found then return forgotten(entry, 'gone') end
    for i = 1, #found[2] do bytes = bytes + #found[2][i] end
    if kind == 'cancelled' or isCancelled(entry.jobId) then
      return ended(entry, found[2], forgotten(entry, 'cancelled'))
    end
    if kind == 'retry' then return retry(entry, found[2], args) end
    if kind == 'retry-turned' then
      local word = retry(entry, found[2], args)
      return word == 'retried' and turned(entry, found[2], word) or word
    end
    if kind == 'wait' then return wait(entry, found[2], args) end
    return ended(entry, found[2], bury(entry, found[2], args), args)
  end

  local i = 6
  while i <= #ARGV and bytes <= 1048576 do
    local entry = {id = ARGV[i], deliveries = tonumber(ARGV[i + 1]), tally = ARGV[i + 2], minute = ARGV[i + 3], jobId = ARGV[i + 4]}
    local kind, count, args = ARGV[i + 5], tonumber(ARGV[i + 6]), {}
    for a = 1, count do args[a] = ARGV[i + 6 + a] end
    words[#words + 1] = settle(entry, kind, args)
    i = i + 7 + count
  end
  if isStream and redis.call('EXISTS', source) == 1 then
    local ok, floor = pcall(floorOf, source, group)
    if ok and floor then redis.call('HSET', settings, 'group:' .. group .. ':floor', floor) end
  end
  if woken then words[#words + 1] = 'woken' end
  return words`,
)
