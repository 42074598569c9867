import { script } from './script.ts'

/**
 * Delivers entries that were never delivered to the group, from several streams and their redelivery streams, to one worker:
 * first to each stream its quota, in the order given, then what is left of the total to those that may have more, in the same
 * order. One step, since COUNT of a read over several keys is for each of them: the worker would get many times what it has
 * room for, and streams that come last would be read while the first still have work. No block: a script cannot wait.
 *
 * `turn` (0 | 1) says where an odd one goes: it changes with every read, so that with room for one the stream does not wait
 * for ever behind its redelivery stream. A stream that cannot be read (no group, another type) does not stop the others; what
 * was delivered of it before is in the reply. What Redis answers to every write now is an error of the whole script: it is about
 * no stream, nothing was delivered, and a client that hears READONLY looks for the Redis that was promoted.
 *
 * Returns for each stream {how many were asked for, how many came, fault or '', entries, redelivery entries}.
 */
export const readLanes = script(
  'readLanes',
  `
  -- KEYS stream, redelivery, and so on | ARGV group consumer total turn, then for each stream: quota want
  local group, consumer, left, turn = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
  local everywhere = {READONLY = true, MISCONF = true, NOREPLICAS = true, OOM = true}
  local lanes, refused = {}, nil
  for at = 1, #KEYS / 2 do lanes[at] = {0, 0, '', {}, {}} end
  local function read(at, source, count)
    local lane = lanes[at]
    if count <= 0 or lane[3] ~= '' then return 0 end
    local reply = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', KEYS[2 * at - 1 + source], '>')
    if reply and reply.err then
      lane[3] = reply.err
      -- Before 7.0 it says first of which script it is.
      if everywhere[string.match(reply.err, '^[^%u]*(%u+)')] then refused = reply.err end
      return 0
    end
    local entries, found = reply and reply[1][2] or {}, lane[4 + source]
    for i = 1, #entries do found[#found + 1] = entries[i] end
    lane[2] = lane[2] + #entries
    left = left - #entries
    return #entries
  end
  local function readLane(at, count)
    if count <= 0 then return end
    local lane, half = lanes[at], math.floor((count + turn) / 2)
    lane[1] = lane[1] + count
    local redelivered = read(at, 1, half)
    local rest = count - redelivered - read(at, 0, count - redelivered)
    if redelivered == half then read(at, 1, rest) end
  end
  for at = 1, #lanes do readLane(at, math.min(tonumber(ARGV[3 + 2 * at]), left)) end
  for at = 1, #lanes do
    local lane = lanes[at]
    if lane[2] == lane[1] then readLane(at, math.min(tonumber(ARGV[4 + 2 * at]) - lane[2], left)) end
  end
  if refused then return {err = refused} end
  return lanes`,
)
