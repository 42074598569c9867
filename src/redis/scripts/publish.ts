import { FIELDS, NOW } from './lua.ts'
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
 * Takes a sequence that is kept on disk over from whoever had it, with the place of its last batch: {seq, mark}. Creates it
 * where it was never confirmed (create 1), else a missing key answers {'forgotten'}. Numbers go on in the next block of
 * 2^32, in the same step: a batch of the owner before that is still on its way comes back as stale, whatever it holds.
 */
export const takeOverProducer = script(
  'takeOverProducer',
  `
  -- KEYS producer | ARGV ttlMs create
  local stored = redis.call('HGET', KEYS[1], 'seq')
  if not stored and ARGV[2] ~= '1' then return {'forgotten'} end
  local seq = stored and string.format('%.0f', (math.floor(tonumber(stored) / 4294967296) + 1) * 4294967296) or '0'
  redis.call('HSET', KEYS[1], 'seq', seq, 'ids', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  return {seq, redis.call('HGET', KEYS[1], 'mark') or ''}`,
)

/** The batch that was answered last answers the same again; any other than the next one is told why not. Gives `wrongType()`. */
export const SEQUENCE = `
  local stream, producer = KEYS[1], KEYS[2]
  local seq, ttlMs, items = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
  local stored = redis.call('HGET', producer, 'seq')
  if not stored then return {'forgotten'} end
  stored = tonumber(stored)
  if seq == stored then
    local ids = redis.call('HGET', producer, 'ids')
    -- Nothing was noted of it: a script that ended in its middle. What of it is there nobody knows.
    if ids == '' and items > 0 then return {'forgotten'} end
    return ids
  end
  if seq < stored then return {'stale'} end
  if seq > stored + 1 then return {'behind', stored} end
  local function wrongType()
    local kind = redis.call('TYPE', stream).ok
    return kind ~= 'stream' and kind ~= 'none' and redis.error_reply('WRONGTYPE the stream key holds a ' .. kind)
  end`

/** A batch of one has no middle, and needs no number written before its append. */
const LONE = `
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
  end`

/** Takes `hasLater`. What can be refused is refused here, and in NUMBERS by its first write, before any other. */
export const CHECKS = `
  local refusal = wrongType()
  if refusal then return refusal end
  local nowMs, number = 0, 0
  if hasLater then
    for key, wanted in pairs({[3] = 'zset', [4] = 'hash', [5] = 'hash'}) do
      local kind = redis.call('TYPE', KEYS[key]).ok
      if kind ~= wanted and kind ~= 'none' then
        return redis.error_reply('WRONGTYPE the key ' .. KEYS[key] .. ' holds a ' .. kind)
      end
    end
    -- Tried on what is not there: a user who may not do it is refused before anything is written.
    local allowed = redis.pcall('ZADD', KEYS[3], 'XX', 0, '')
    if type(allowed) == 'table' then return allowed end${NOW}
    nowMs = now()
  end
  local function dueOf(text) return tonumber(text) + (text:sub(1, 1) == '+' and nowMs or 0) end`

/** For the ids of jobs for later. Fails under OOM, or on a counter that is none. */
export const NUMBERS = `
  if hasLater then
    number = redis.pcall('HINCRBY', KEYS[5], 'scheduled-seq', items)
    if type(number) ~= 'number' then return number end
    number = 1000000000000000 + number - items
  end`

/**
 * A batch with the positions of its items ends at the first one that is refused: its mark is then the position before that
 * one, so that nothing behind a job which is not in Redis is taken to be there, and whoever goes on begins with that job.
 */
export const STOP = `
    if positions ~= '' and ids[count]:sub(1, 1) == '!' then items = count end`

/** Writes the mark of a batch, before its items; and again, behind them, where it was ended. */
export const MARKED = `
  local reached = mark ~= '' and redis.call('HGET', producer, 'mark')
  if mark ~= '' then redis.call('HSET', producer, 'mark', mark) end`
export const MARKED_AGAIN = `
  if positions ~= '' and ids[count]:sub(1, 1) == '!' then
    local seen = 0
    for position in positions:gmatch('%C+') do
      seen = seen + 1
      if seen < count then reached = position end
    end
    redis.call('HSET', producer, 'mark', reached or '')
  end`

/**
 * `schedule(dueMs, fields)`: puts a job into the sorted set and the hash that are named, under the number behind `number`, and
 * gives its answer.
 */
export const schedule = (scheduled: string, jobs: string) => `local function schedule(dueMs, fields)
    local jobId
    -- NX: a counter that somebody deleted must not have one job take the place of another.
    repeat
      number = number + 1
      jobId = string.format('%.0f-%.0f', nowMs, number)
    until redis.call('ZADD', ${scheduled}, 'NX', string.format('%.0f', dueMs), jobId) == 1
    fields[#fields + 1] = 'id'
    fields[#fields + 1] = jobId
    redis.call('HSET', ${jobs}, jobId, cmsgpack.pack({'', fields}))
    return '@' .. jobId
  end`

/**
 * Appends the items from ARGV `at` on; `before` is done with each of them first and may say what became of it (`held`), `after`
 * is told what did. `due` is when a job for later is due, of which ARGV has `text`.
 */
export const ITEMS = (before: string, after: string, due = 'dueOf(text)') => `
  if ttlMs ~= '0' then redis.call('PEXPIRE', producer, ttlMs) end
  local ids, count = {}, 0
  local function note(id)
    count = count + 1
    ids[count] = type(id) == 'string' and id or '!'
  end
  ${schedule('KEYS[3]', 'KEYS[4]')}
  while count < items do${before}
    local width = tonumber(ARGV[at])
    if width < 0 then
      local name = ARGV[at + 1]
      for item = at + 2, at + 1 - width do note(redis.pcall('XADD', stream, '*', 'job', name, 'data', ARGV[item])) end
      at = at + 2 - width
    elseif width > 0 then
      note(held or redis.pcall('XADD', stream, '*', unpack(ARGV, at + 1, at + width)))
      at = at + width + 1
    else
      local text, first, last = ARGV[at + 1], at + 3, at + 2 + tonumber(ARGV[at + 2])
      local dueMs = ${due}
      if held then
        note(held)
      elseif dueMs > nowMs then
        note(schedule(dueMs, {unpack(ARGV, first, last)}))
      else
        note(redis.pcall('XADD', stream, '*', unpack(ARGV, first, last)))
      end
      at = last + 1
    end${after}
  end
  local outcomes = table.concat(ids, ' ')
  redis.call('HSET', producer, 'ids', outcomes)`

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
  ${SEQUENCE}${LONE}
  local hasLater, held, at = KEYS[3], nil, 4${CHECKS}${NUMBERS}
  redis.call('HSET', producer, 'seq', seq, 'ids', '')${ITEMS('', '')}
  return outcomes`,
)

/**
 * `countOf(what, at)`: of the items from ARGV `at` on, 'due': how many have a time that is over, and so are for now: a `runAt` of
 * yesterday must not be a way past the bound. 'known': how many are for now and have a token that has a job already.
 */
export const COUNT = `
  local function countOf(what, at)
    local found, seen = 0, 0
    while seen < items do
      local token = ARGV[at] == 't' and KEYS[5 + tonumber(ARGV[at + 1])]
      if token then at = at + 3 end
      if ARGV[at] == 'u' then at = at + 7 end
      -- A run of unique jobs is for now: its count, and that of what comes before its payloads.
      local width = ARGV[at] == 'U' and -tonumber(ARGV[at + 1]) or tonumber(ARGV[at])
      if ARGV[at] == 'U' then at = at + 6 end
      seen = seen + math.max(1, -width)
      local isDue = width == 0 and dueOf(ARGV[at + 1]) <= nowMs
      if what == 'due' and isDue then found = found + 1 end
      if what == 'known' and token and (width ~= 0 or isDue) then
        local held = redis.pcall('GET', token)
        if type(held) == 'string' and held ~= '' then found = found + 1 end
      end
      if width == 0 then at = at + 3 + tonumber(ARGV[at + 2])
      else at = at + (width < 0 and 2 - width or width + 1) end
    end
    return found
  end`

/** Refuses a batch that the stream has no room for. Takes `later`, of its items those that are not for now. */
export const BOUND = `
  local bound = ARGV[6] == '1' and redis.pcall('HGET', KEYS[5], 'maxBacklog')
  bound = type(bound) == 'string' and #bound <= 15 and bound:match('^%d+$') and tonumber(bound)
  local coming = bound and items - later + (hasLater and countOf('due', at) or 0) or 0
  if coming > 0 then
    local groups = redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'GROUPS', stream) or {}
    local backlog = #groups == 0 and redis.call('XLEN', stream) or 0
    for _, flat in ipairs(groups) do
      local group = fields(flat)
      backlog = math.max(backlog, group.pending + (group.lag or 0))
    end
    -- What is there already takes no room, and is to be told so.
    if backlog + coming > bound then coming = coming - countOf('known', at) end
    if coming > 0 and backlog + coming > bound then return {'full', backlog, bound} end
  end`

/** Of an item with a token: looks whether that has a job already, and tries whether it can be kept. */
export const TOKEN = `
    local token, tokenMs, held = nil, nil, nil
    if ARGV[at] == 't' then
      token, tokenMs, at = KEYS[5 + tonumber(ARGV[at + 1])], ARGV[at + 2], at + 3
      held = redis.pcall('GET', token)
      -- A key that is no token, or that we may not write, answers with an error, which is what becomes of the item: '!'. Tried
      -- before the append: a job whose token is not kept would be published again.
      if type(held) == 'string' and held ~= '' then held = '=' .. held
      elseif not held or held == '' then
        local kept = redis.pcall('SET', token, '', 'PX', tokenMs)
        held = kept.err and kept or nil
      end
    end`

const TOKEN_KEPT = `
    if token and not held then
      if ids[count] == '!' then redis.pcall('PEXPIRE', token, 0)
      else redis.call('SET', token, ids[count], 'PX', tokenMs) end
    end`

/**
 * The same, for batches of which more is asked:
 *
 * - The stream's bound: if it is to be checked, `maxBacklog` is set, and the largest backlog of its groups (of a stream without groups: its length)
 *   and the items for now exceed it, nothing is appended: {'full', backlog, bound}. A lag that Redis does not know counts
 *   as 0, and a bound that is no number, or in a key of another type, as none: it must not stop a service over what nobody
 *   knows. Checked with the append, in one step, so that it holds for all producers together.
 * - A mark: the place behind the batch in what is being published, written with it. What was begun by a process that is gone
 *   goes on from there (`takeOverProducer`), without doubling and without a record of its own. With the positions of all its
 *   items, a line each, the batch ends at the first one that is refused, and so does its answer.
 * - Tokens: 't', index, ttlMs before an item name the key of its idempotency token. Where that holds the id of a job there
 *   already is one, and nothing is appended: the item's answer is '=' and that id.
 *
 * Returns {'done', ids, bound or '' if there is none or it was not looked at} or the ids alone for a batch that was there, and otherwise as publishBatch does.
 */
export const publishChecked = script(
  'publishChecked',
  `
  -- KEYS stream producer scheduled jobs settings [tokens …] | ARGV seq ttlMs items mark later check positions, then items as above
  ${SEQUENCE}${FIELDS}
  local mark, later, positions = ARGV[4], tonumber(ARGV[5]), ARGV[7]
  local hasLater, at = later > 0, 8${CHECKS}${COUNT}${BOUND}${NUMBERS}
  redis.call('HSET', producer, 'seq', seq, 'ids', '')${MARKED}${ITEMS(TOKEN, TOKEN_KEPT + STOP)}${MARKED_AGAIN}
  return {'done', outcomes, bound or ''}`,
)
