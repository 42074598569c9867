import { HOLDER, KEY_IN } from './holder.ts'
import { NOW } from './lua.ts'
import { REPLY } from './reply.ts'
import { script } from './script.ts'

/**
 * Moves scheduled jobs into the stream that they go to: those that are due, or those that are named, whenever they are due.
 * Append, removal and index are one step, so that a job is at every instant either scheduled or in the stream, however often
 * a lost reply has the call sent again and however many workers send it at once. The fields are packed inside Redis and
 * unpacked here: their bytes never pass through a client.
 *
 * A record holds the fields of one entry, or of a few where a job failed twice beside itself: all of them are appended.
 *
 * A job whose record is missing, cannot be read or cannot be appended is set aside: its time becomes +inf, so that it is
 * never at the head again and those behind it go on; it stays in the set for people to look at. What is no fault of the job
 * sets none aside: a target of another type, a full id space, a missing permission stop the call, with an error unless some
 * were moved before, which the next call then gets. What refuses all writes (read-only, a full disk) fails the first one.
 * That one is harmless: under OOM it lets the others pass, and a job that moves takes no more room than before.
 *
 * Ends after 1 MiB of records, beyond one job. A width that unpack cannot take is no record. Returns {more, next due time or
 * '', the server's time, how many of the named jobs were looked at, ids moved, ids set aside}; more = 1 if others are due.
 */
export const promote = script(
  'promote',
  `${NOW}${HOLDER}${KEY_IN}${REPLY}
  -- KEYS zset jobs target [index] | ARGV most, then the ids of the jobs that are meant, if not those that are due
  local zset, jobs, target, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
  for key, wanted in pairs({'zset', 'hash', 'stream', 'hash'}) do
    local kind = KEYS[key] and redis.call('TYPE', KEYS[key]).ok or 'none'
    if kind ~= wanted and kind ~= 'none' then
      return redis.error_reply('WRONGTYPE nothing was promoted: the key ' .. KEYS[key] .. ' holds a ' .. kind)
    end
  end
  local nowMs = now()
  local named = #ARGV > 1
  local ids = named and {unpack(ARGV, 2)} or redis.call('ZRANGEBYSCORE', zset, '-inf', nowMs, 'LIMIT', 0, ARGV[1])
  if #ids > 0 then redis.call('HDEL', jobs, '') end

  local function isWritable(fields)
    if type(fields) ~= 'table' or #fields == 0 or #fields % 2 == 1 or #fields > 7900 then return false end
    for at = 1, #fields do
      if type(fields[at]) ~= 'string' and type(fields[at]) ~= 'number' then return false end
    end
    return true
  end
  local function unpacked(raw)
    local ok, record = pcall(cmsgpack.unpack, raw)
    if not ok or type(record) ~= 'table' or #record < 2 then return nil end
    for n = 2, #record do
      if not isWritable(record[n]) then return nil end
    end
    return record
  end
  local function isOfJob(failure)
    for _, text in ipairs({'last possible ID', 'ACL', 'executing the script'}) do
      if failure:find(text, 1, true) then return false end
    end
    return true
  end

  local moved, aside, indexed, seen = {}, {}, {}, {}
  local bytes, looked, appended, failure = 0, 0, 0, nil
  -- Gives the id of the last entry; nil if the job is at fault; a failure that is not its own. What could not be appended
  -- any more stays in the record, so that what was is not appended again.
  local function append(id, record, at)
    local last
    for n = 2, #record do
      local fields = record[n]
      fields[#fields + 1] = 'at'
      fields[#fields + 1] = at
      local added = redis.pcall('XADD', target, '*', unpack(fields))
      if type(added) ~= 'string' then
        if not last then return nil, not isOfJob(added.err) and added or nil end
        fields[#fields], fields[#fields - 1] = nil, nil
        redis.call('HSET', jobs, id, cmsgpack.pack({record[1], unpack(record, n)}))
        return nil, added
      end
      last, appended = added, appended + 1
    end
    return last
  end
  -- The id of a job that was published for later is not that of its entry: from here on the holder of a key says where it is.
  -- A retry needs no such note, since the index of its group has one.
  local function noteHolder(id, record, entry)
    local name = keyIn(record[2])
    local key = name and uniqueIn(zset:sub(1, -11), name)
    local kept = key and redis.pcall('GET', key)
    local holder = type(kept) == 'string' and holderOf(kept)
    if not holder or holder.job ~= id then return end
    local text = table.concat({id, entry, holder.scope, holder.group, string.format('%.0f', holder.first)}, ' ')
    redis.pcall('SET', key, text, 'KEEPTTL')
  end
  -- Likewise for whoever asks how it stands before it has ended.
  local function noteAsked(id, record, entry)
    local ok, reply = pcall(replyIn, record[2])
    if ok and reply then notePromoted(zset:sub(1, -11), id, entry, nowMs) end
  end
  for _, id in ipairs(ids) do
    if bytes >= 1048576 or appended >= 500 then break end
    local score = not seen[id] and redis.call('ZSCORE', zset, id)
    seen[id] = true
    if score then
      local raw = redis.call('HGET', jobs, id)
      local record = raw and unpacked(raw)
      local added
      if record then
        bytes = bytes + #raw
        added, failure = append(id, record, string.format('%.0f', math.max(0, math.min(tonumber(score), nowMs))))
        if failure then break end
      end
      if type(added) == 'string' then
        moved[#moved + 1] = id
        if not index and raw:find('unique', 1, true) then noteHolder(id, record, added) end
        if not index and raw:find('reply', 1, true) then noteAsked(id, record, added) end
        indexed[#indexed + 1] = id
        indexed[#indexed + 1] = 'redelivery ' .. added
      else
        aside[#aside + 1] = id
        redis.call('ZADD', zset, '+inf', id)
      end
    end
    looked = looked + 1
  end
  if #moved > 0 then
    redis.call('ZREM', zset, unpack(moved))
    redis.call('HDEL', jobs, unpack(moved))
    if index then redis.call('HSET', index, unpack(indexed)) end
  end
  if failure and #moved + #aside == 0 then return failure end
  local first = redis.call('ZRANGEBYSCORE', zset, '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local nextDue = first[2] and string.format('%.0f', math.max(0, tonumber(first[2]))) or ''
  local more = first[2] and tonumber(first[2]) <= nowMs and 1 or 0
  return {more, nextDue, string.format('%.0f', nowMs), looked, moved, aside}`,
)
