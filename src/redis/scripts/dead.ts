import { GROUPS, NOW, RECORD_OUTCOMES } from './lua.ts'
import { script } from './script.ts'

/**
 * Dead letters after they died: looked at, redriven, purged. A dead letter is provenance, fields whose names begin with
 * `dead-` and of which `dead-fields` is the last, and then the raw fields of the entry or all of them packed into one.
 */

/** What a row tells of the provenance, in this order. */
export const ROW_FIELDS = [
  'dead-id',
  'dead-reason',
  'dead-error',
  'dead-message',
  'dead-attempts',
  'dead-total-attempts',
  'dead-deliveries',
  'dead-worker',
  'dead-origin',
  'dead-source',
  'dead-first-failed',
  'dead-at',
] as const

/**
 * `letterOf(flat)`: the provenance by name; the raw fields, flat, and where in that table they begin; the bytes. No raw
 * fields where the letter is not one that we wrote. Read by name and only up to `dead-fields`, since a raw field may have any
 * name; packed only if the count says so, since a raw field may be called `dead-packed` too.
 */
const LETTER = `
  local function unpacked(text, count)
    local ok, raw = pcall(cmsgpack.unpack, text)
    if not ok or type(raw) ~= 'table' or #raw ~= 2 * count then return nil end
    for i = 1, #raw do
      if type(raw[i]) ~= 'string' then return nil end
    end
    return raw
  end
  local function letterOf(flat)
    local named, count, from, bytes = {}, nil, nil, 0
    for i = 1, #flat do bytes = bytes + #flat[i] end
    for i = 1, #flat, 2 do
      if flat[i] == 'dead-fields' then
        count, from = tonumber(flat[i + 1]), i + 2
        break
      end
      named[flat[i]] = named[flat[i]] or flat[i + 1]
    end
    if not count or count < 1 then return named, nil, 1, bytes end
    if #flat - from + 1 == 2 * count then return named, flat, from, bytes end
    if #flat ~= from + 1 or flat[from] ~= 'dead-packed' then return named, nil, 1, bytes end
    return named, unpacked(flat[from + 1], count), 1, bytes
  end`

/**
 * `rowOf(entry)`: what is told of a dead letter in a list: {dead id, job name or '', provenance…}, and its bytes. Neither
 * payload nor stack, and no text beyond what a worker writes.
 */
export const ROW = `${LETTER}
  local rowFields = {${ROW_FIELDS.map((name) => `'${name}'`).join(', ')}}
  local function rowOf(entry)
    local named, raw, from, bytes = letterOf(entry[2])
    local job = ''
    for i = from, raw and #raw or 0, 2 do
      if raw[i] == 'job' then
        job = raw[i + 1]
        break
      end
    end
    local row = {entry[1], job:sub(1, 400)}
    for _, name in ipairs(rowFields) do row[#row + 1] = (named[name] or ''):sub(1, 4000) end
    return row, bytes
  end`

/**
 * A page of dead letters without their payloads, which are left behind in Redis: a filter looks at thousands of letters to
 * find a few. Letters are read one by one, for a COUNT would bring as many payloads into the script as it says.
 * At most 500 letters, or what is over 1 MiB.
 *
 * Returns {letters in all, more, row, …}, more = 1 if the range has others behind these.
 */
export const readDeadLetters = script(
  'readDeadLetters',
  `${ROW}
  -- KEYS dead | ARGV order(newest|oldest) low high most
  local dead, newest, low, high = KEYS[1], ARGV[1] == 'newest', ARGV[2], ARGV[3]
  local most, rows, total = math.min(tonumber(ARGV[4]), 500), {}, 0
  local function nextEntry()
    local reply
    if newest then reply = redis.pcall('XREVRANGE', dead, high, low, 'COUNT', 1)
    else reply = redis.pcall('XRANGE', dead, low, high, 'COUNT', 1) end
    -- The lowest and the highest id there is have nothing beside them, and asking for it is an error.
    if reply.err and reply.err:find('ID for the interval', 1, true) then return nil end
    if reply.err then return nil, reply end
    return reply[1]
  end
  while true do
    local entry, refusal = nextEntry()
    if refusal then return refusal end
    if not entry then return {redis.call('XLEN', dead), 0, unpack(rows)} end
    if #rows == most or total > 1048576 then return {redis.call('XLEN', dead), 1, unpack(rows)} end
    local row, bytes = rowOf(entry)
    rows[#rows + 1] = row
    total = total + bytes
    if newest then high = '(' .. entry[1] else low = '(' .. entry[1] end
  end`,
)

/**
 * The same with nothing but the ids, oldest first: what moves all letters needs no more, and half of the work of a page is to
 * make its rows. Returns {more, dead id, job id or '', …}.
 */
export const readDeadIds = script(
  'readDeadIds',
  `
  -- KEYS dead | ARGV low high most
  local dead, low, high, most = KEYS[1], ARGV[1], ARGV[2], math.min(tonumber(ARGV[3]), 500)
  local reply, total = {0}, 0
  while true do
    local range = redis.pcall('XRANGE', dead, low, high, 'COUNT', 1)
    -- The highest id there is has nothing behind it, and asking for it is an error.
    if range.err and not range.err:find('ID for the interval', 1, true) then return range end
    local entry = not range.err and range[1]
    if not entry then return reply end
    if #reply > 2 * most or total > 1048576 then
      reply[1] = 1
      return reply
    end
    local flat, id = entry[2], ''
    for i = 1, #flat do total = total + #flat[i] end
    for i = 1, #flat, 2 do
      if flat[i] == 'dead-id' then
        id = flat[i + 1]
        break
      end
      if flat[i] == 'dead-fields' then break end
    end
    reply[#reply + 1] = entry[1]
    reply[#reply + 1] = id
    low = '(' .. entry[1]
  end`,
)

/**
 * Dead letters by id: by the job's through the index, else by the letter's own. At most 200 ids a call; stops after 1 MiB,
 * so the answer may be shorter than the question. Returns a row for each id, {} for one that is not found.
 */
export const findDeadLetters = script(
  'findDeadLetters',
  `${ROW}
  -- KEYS dead index | ARGV id...
  local dead, index = KEYS[1], KEYS[2]
  local rows, total = {}, 0
  for _, id in ipairs(ARGV) do
    if total > 1048576 then break end
    local place = redis.call('HGET', index, id) or ''
    local deadId = place:match('^dead (%d+%-%d+)$')
    local entry = deadId and redis.call('XRANGE', dead, deadId, deadId)[1]
    entry = entry or redis.call('XRANGE', dead, id, id)[1]
    local row, bytes = {}, 0
    if entry then row, bytes = rowOf(entry) end
    rows[#rows + 1] = row
    total = total + bytes
  end
  return rows`,
)

/** `refusalOf(kinds)`: an error if a key is of another type. A script that fails in its middle is not rolled back. */
const REFUSAL = `
  local function refusalOf(kinds)
    for key, wanted in pairs(kinds) do
      local kind = redis.call('TYPE', key).ok
      if kind ~= wanted and kind ~= 'none' then
        return redis.error_reply('WRONGTYPE the key ' .. key .. ' holds a ' .. kind .. ', not a ' .. wanted)
      end
    end
  end`

/**
 * Moves dead letters back to the group: raw fields to the redelivery stream under the same job id and with no attempt
 * spent, index, dead letter deleted, tally. One step, so that a job is at every instant either dead or to be delivered; and
 * sent again after a lost reply, it finds the letters gone and moves nothing twice.
 *
 * Letters with more fields than unpack takes are left as they are, one by one ('wide'), and so are those that are not what
 * we wrote ('unreadable'). What an earlier round left in the fields (attempt, at …) is replaced; a deadline and the time that it
 * has waited for a worker are dropped, or it would die of them again: whoever redrives it wants it to run now. Fields are copied inside
 * Redis: a client would bend bytes that are not UTF-8. Under OOM it is refused, before anything is written.
 *
 * At most 200 letters; stops after 1 MiB, so the answer may be shorter than the question.
 * Returns 'moved' | 'gone' | 'wide' | 'unreadable' for each.
 */
export const redriveDeadLetters = script(
  'redriveDeadLetters',
  `${GROUPS}${NOW}${LETTER}${REFUSAL}
  -- KEYS stream dead redelivery index tally... outcomes...
  -- ARGV group tallyTtlMs, then per letter: deadId jobId tally minute
  local dead, redelivery, index, group = KEYS[2], KEYS[3], KEYS[4], ARGV[1]
  if not groupsOf(KEYS[1])[group] then return redis.error_reply('NOGROUP the stream has no group ' .. group) end
  local kinds = {[dead] = 'stream', [redelivery] = 'stream', [index] = 'hash'}
  local hours = (#KEYS - 4) / 2
  for i = 5, 4 + hours do kinds[KEYS[i]] = 'hash' end
  local refusal = refusalOf(kinds)
  if refusal then return refusal end

  local replaced = {
    id = true, attempt = true, at = true, ['first-failed'] = true, ['past-attempts'] = true,
    expires = true, ['waited-since'] = true, ['past-deliveries'] = true
  }
  local at = string.format('%.0f', now())
  local function redriven(jobId, named, raw, from)
    local values, isAsked = {}, false
    for i = from, #raw, 2 do
      if raw[i] == 'reply' then isAsked = true end
      if not replaced[raw[i]] then
        values[#values + 1] = raw[i]
        values[#values + 1] = raw[i + 1]
      end
    end
    local added = {'id', jobId, 'at', at}
    local past = (named['dead-total-attempts'] or ''):match('^%d+$') or (named['dead-attempts'] or ''):match('^%d+$')
    if past then
      added[#added + 1] = 'past-attempts'
      added[#added + 1] = past
    end
    for i = 1, #added do values[#values + 1] = added[i] end
    return values, isAsked
  end

  local states, total = {}, 0
  local moved, places, counts = {}, {}, {}
  for arg = 3, #ARGV, 4 do
    if total > 1048576 then break end
    local deadId, jobId, state = ARGV[arg], ARGV[arg + 1], 'gone'
    local entry = redis.call('XRANGE', dead, deadId, deadId)[1]
    if entry then
      local named, raw, from, bytes = letterOf(entry[2])
      total = total + bytes
      local values, isAsked
      if raw and named['dead-id'] == jobId then values, isAsked = redriven(jobId, named, raw, from) end
      if not values then state = 'unreadable'
      elseif #values > 7800 then state = 'wide'
      else
        local id = redis.pcall('XADD', redelivery, '*', unpack(values))
        if type(id) ~= 'string' then
          if #moved == 0 then return id end
          break
        end
        moved[#moved + 1] = deadId
        places[#places + 1] = jobId
        places[#places + 1] = 'redelivery ' .. id
        local bucket = ARGV[arg + 2] .. ' ' .. ARGV[arg + 3]
        counts[bucket] = (counts[bucket] or 0) + 1
        redis.pcall('HDEL', KEYS[4 + hours + tonumber(ARGV[arg + 2])], jobId) -- it has no outcome any more
        if isAsked then redis.pcall('PEXPIRE', index:sub(1, -6) .. 'result:' .. jobId, 0) end
        state = 'moved'
      end
    end
    states[#states + 1] = state
  end
  if #moved > 0 then
    redis.call('HSET', index, unpack(places))
    redis.call('XDEL', dead, unpack(moved))
  end
  for bucket, count in pairs(counts) do
    local tally, minute = bucket:match('^(%d+) (%d+)$')
    redis.pcall('HINCRBY', KEYS[4 + tonumber(tally)], minute .. ':redriven', count)
    redis.call('PEXPIRE', KEYS[4 + tonumber(tally)], ARGV[2])
  end
  return states`,
)

/**
 * Deletes dead letters, with their place in the index if it is theirs: the job may be on its way again, or be dead once
 * more. One step, so that the tally says exactly what was discarded. Deleting frees memory and must pass under OOM, which is
 * judged at the first write: a harmless one comes first. At most 200 letters. Returns 'moved' | 'gone' for each.
 */
export const purgeDeadLetters = script(
  'purgeDeadLetters',
  `${REFUSAL}${NOW}${RECORD_OUTCOMES}
  -- KEYS dead index settings tally... outcomes... | ARGV group tallyTtlMs, then per letter: deadId jobId tally minute
  local dead, index = KEYS[1], KEYS[2]
  local kinds, hours = {[dead] = 'stream', [index] = 'hash'}, (#KEYS - 3) / 2
  for i = 4, 3 + hours do kinds[KEYS[i]] = 'hash' end
  local refusal = refusalOf(kinds)
  if refusal then return refusal end
  redis.call('HDEL', index, '')
  local states, recordedAt = {}, isRecording(KEYS[3], ARGV[1]) and now()
  for arg = 3, #ARGV, 4 do
    local deadId, jobId, tally = ARGV[arg], ARGV[arg + 1], KEYS[3 + tonumber(ARGV[arg + 2])]
    if redis.call('XDEL', dead, deadId) == 1 then
      if redis.call('HGET', index, jobId) == 'dead ' .. deadId then redis.call('HDEL', index, jobId) end
      redis.pcall('HINCRBY', tally, ARGV[arg + 3] .. ':discarded', 1)
      redis.call('PEXPIRE', tally, ARGV[2])
      if recordedAt and jobId:find('^%d+%-%d+$') then
        record(KEYS[3 + hours + tonumber(ARGV[arg + 2])], jobId, 'discarded', recordedAt, ARGV[2])
      end
      states[#states + 1] = 'moved'
    else
      states[#states + 1] = 'gone'
    end
  end
  return states`,
)

/**
 * Which of the oldest dead letters are past their age, by the server's clock and the stream's settings. At most `most`, or
 * what is over 1 MiB. Returns {more, {dead id, job id}, …}.
 */
export const expiredDeadLetters = script(
  'expiredDeadLetters',
  `${NOW}${LETTER}
  -- KEYS dead settings | ARGV defaultMaxAgeMs most
  local dead, set = KEYS[1], (redis.call('HGET', KEYS[2], 'dead:maxAgeMs') or ''):match('^%d+$')
  local before = now() - tonumber(set or ARGV[1])
  local low, high = '-', string.format('%.0f', math.max(before, 1)) .. '-0'
  local found, total = {}, 0
  while true do
    local entry = redis.call('XRANGE', dead, low, '(' .. high, 'COUNT', 1)[1]
    if not entry then return {0, unpack(found)} end
    if #found == tonumber(ARGV[2]) or total > 1048576 then return {1, unpack(found)} end
    local named, _, _, bytes = letterOf(entry[2])
    found[#found + 1] = {entry[1], named['dead-id'] or ''}
    total = total + bytes
    low = '(' .. entry[1]
  end`,
)
