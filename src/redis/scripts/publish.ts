import { NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * Starts a producer's sequence at 0, before its first batch. Answers 1, or 0 if the key exists already. It is confirmed
 * before anything is appended under it: only then does a missing key always mean "forgotten" and never "not yet there".
 */
export const openProducer = script(
  'openProducer',
  `
  -- KEYS producer | ARGV ttlMs
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
  redis.call('HSET', KEYS[1], 'seq', 0, 'ids', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  return 1`,
)

/**
 * Appends one batch to the stream and writes its sequence number with what became of each item, in one step, so that the
 * same batch sent again (a lost reply) answers with the same ids instead of appending twice.
 *
 * Returns the ids as one text with a space between them and '!' for an item that Redis refused, or {'stale'} for an older
 * batch, {'behind', stored} if the server lost batches, {'forgotten'} if the producer's key is gone. All is checked before
 * the first write, and the sequence is written before the first append: an append that fails in the middle cannot lead to a
 * resend that appends the others again. A batch of one has no middle: its append is the first write, and if that fails
 * nothing was written. That saves half of the calls of a lone publish.
 *
 * Items of the common shape (job, data) come as runs of one job name: -count, name, payload, …; any other item as its width,
 * field, value, …. So most jobs are one argument and not five. ttlMs 0 leaves the key's time as it is.
 *
 * A job for later comes as 0, due, width, field, value, …, where due is a time in ms since the epoch, or +ms from now, by the
 * server's clock. If that is over it is appended like any other; else it is put into the scheduled set under a new job id,
 * its fields packed as they came, and its id in the answer begins with '@'. The sequence part of such an id has sixteen
 * digits, so that it meets no entry's id. Only batches with such items name the three keys for them. Taking the numbers
 * for the ids is the first write: it fails under OOM, or on a counter that is none, while nothing is written yet.
 */
export const publishBatch = script(
  'publishBatch',
  `
  -- KEYS stream producer [scheduled jobs settings] | ARGV seq ttlMs items, then items as above
  local stream, producer = KEYS[1], KEYS[2]
  local seq, ttlMs, items = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
  local stored = redis.call('HGET', producer, 'seq')
  if not stored then return {'forgotten'} end
  stored = tonumber(stored)
  if seq == stored then return redis.call('HGET', producer, 'ids') end
  if seq < stored then return {'stale'} end
  if seq > stored + 1 then return {'behind', stored} end
  local function wrongType()
    local kind = redis.call('TYPE', stream).ok
    return kind ~= 'stream' and kind ~= 'none' and redis.error_reply('WRONGTYPE the stream key holds a ' .. kind)
  end
  if items == 1 and not KEYS[3] then
    local id
    if ARGV[4] == '-1' then
      id = redis.pcall('XADD', stream, '*', 'job', ARGV[5], 'data', ARGV[6])
    else
      id = redis.pcall('XADD', stream, '*', unpack(ARGV, 5, 4 + tonumber(ARGV[4])))
    end
    if type(id) ~= 'string' then
      -- The highest id there is was given: the outcome of this job. Anything else (memory, another type) is of the batch.
      if not id.err:find('last possible ID', 1, true) then return wrongType() or id end
      id = '!'
    end
    redis.call('HSET', producer, 'seq', seq, 'ids', id)
    if ttlMs ~= '0' then redis.call('PEXPIRE', producer, ttlMs) end
    return id
  end
  local refusal = wrongType()
  if refusal then return refusal end
  local nowMs, number = 0, 0
  if KEYS[3] then
    for key, wanted in pairs({[3] = 'zset', [4] = 'hash', [5] = 'hash'}) do
      local kind = redis.call('TYPE', KEYS[key]).ok
      if kind ~= wanted and kind ~= 'none' then
        return redis.error_reply('WRONGTYPE the key ' .. KEYS[key] .. ' holds a ' .. kind)
      end
    end${NOW}
    nowMs = now()
    number = redis.pcall('HINCRBY', KEYS[5], 'scheduled-seq', items)
    if type(number) ~= 'number' then return number end
    number = 1000000000000000 + number - items
  end
  redis.call('HSET', producer, 'seq', seq, 'ids', '')
  if ttlMs ~= '0' then redis.call('PEXPIRE', producer, ttlMs) end
  local ids, count, at = {}, 0, 4
  local function note(id)
    count = count + 1
    ids[count] = type(id) == 'string' and id or '!'
  end
  local function schedule(dueMs, fields)
    number = number + 1
    local jobId = string.format('%.0f-%.0f', nowMs, number)
    fields[#fields + 1] = 'id'
    fields[#fields + 1] = jobId
    redis.call('ZADD', KEYS[3], string.format('%.0f', dueMs), jobId)
    redis.call('HSET', KEYS[4], jobId, cmsgpack.pack({'', fields}))
    return '@' .. jobId
  end
  while count < items do
    local width = tonumber(ARGV[at])
    if width < 0 then
      local name = ARGV[at + 1]
      for item = at + 2, at + 1 - width do note(redis.pcall('XADD', stream, '*', 'job', name, 'data', ARGV[item])) end
      at = at + 2 - width
    elseif width > 0 then
      note(redis.pcall('XADD', stream, '*', unpack(ARGV, at + 1, at + width)))
      at = at + width + 1
    else
      local due, first, last = ARGV[at + 1], at + 3, at + 2 + tonumber(ARGV[at + 2])
      local dueMs = tonumber(due)
      if due:sub(1, 1) == '+' then dueMs = nowMs + dueMs end
      if dueMs > nowMs then
        note(schedule(dueMs, {unpack(ARGV, first, last)}))
      else
        note(redis.pcall('XADD', stream, '*', unpack(ARGV, first, last)))
      end
      at = last + 1
    end
  end
  local outcomes = table.concat(ids, ' ')
  redis.call('HSET', producer, 'ids', outcomes)
  return outcomes`,
)
