import { FIELDS, NOW, QUIET, SILENT } from './lua.ts'
import { script } from './script.ts'

/**
 * One step of a claim pass: takes over what was handed back, and what nobody renewed for a lease. Looking, taking the
 * group's claim tick and claiming are one step, so that two workers never sweep at once and a sweep that was sent before
 * Redis went away does nothing when it comes to be executed after it.
 *
 * XAUTOCLAIM looks at ten times COUNT entries, so 50 keeps a call within 500.
 * JUSTID throughout: a claim whose reply is lost has cost the job nothing. The delivery is counted by beginDeliveries.
 *
 * mode 'take' begins a pass and needs the tick; 'go' continues one. room bounds how many entries come back. XAUTOCLAIM
 * scans in id order, ten times COUNT at most, so that old ids with young idle times hide the expired ones behind them: the
 * cursors are kept by the caller until they are '0-0' again. Entries in the list of the avoided (timed out here, their
 * handler still runs) go to the hand-back consumer, for others.
 *
 * Returns {state, cursor, redeliveryCursor, gone, row, …}, state = 'taken' | 'quiet' | 'done' | 'more', gone = {source, id, …}
 * of the entries that had been deleted from the stream while pending and that XAUTOCLAIM has taken out of the pending list,
 * row = {source, id, deliveries} with source 1 = stream, 2 = redelivery stream.
 */
export const claim = script(
  'claim',
  `${FIELDS}${NOW}${QUIET}${SILENT}
  -- KEYS stream redelivery info | ARGV mode group me leaseMs intervalMs room cursor redeliveryCursor avoided...
  local info, mode, group, me = KEYS[3], ARGV[1], ARGV[2], ARGV[3]
  local leaseMs, intervalMs, room = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
  local cursors = {ARGV[7], ARGV[8]}
  local avoided, avoidedCount = {}, #ARGV - 8
  for i = 9, #ARGV do avoided[ARGV[i]] = true end
  local at, gone = now(), {}
  redis.call('XACK', KEYS[1], group, '0-1') -- under OOM a first harmless write lets the others pass
  if isQuiet(info, at, intervalMs, leaseMs) then return {'quiet', '0-0', '0-0', gone} end
  local tick = tonumber(redis.call('HGET', info, ':tick') or 0)
  if mode == 'take' and at - tick < intervalMs and at >= tick then return {'taken', cursors[1], cursors[2], gone} end
  redis.call('HSET', info, ':tick', at)

  local rows = {}
  local function take(source, id)
    local entry = redis.call('XPENDING', KEYS[source], group, id, id, 1)[1]
    if entry then
      rows[#rows + 1] = {source, id, entry[4]}
      room = room - 1
    end
  end
  for source = 2, 1, -1 do
    if room > 0 then
      local range = redis.call('XPENDING', KEYS[source], group, '-', '+', math.min(room, 100) + avoidedCount, ':handback')
      for _, entry in ipairs(range) do
        if room > 0 and not avoided[entry[1]] then
          redis.call('XCLAIM', KEYS[source], group, me, 0, entry[1], 'JUSTID')
          take(source, entry[1])
        end
      end
    end
  end

  local swept = tonumber(redis.call('HGET', info, ':sweep') or 0)
  local due = mode == 'go' or cursors[1] ~= '0-0' or cursors[2] ~= '0-0' or at - swept >= leaseMs or at < swept
    or hasSilent(KEYS[2], group, me, leaseMs) or hasSilent(KEYS[1], group, me, leaseMs)
  if not due then return {'done', '0-0', '0-0', gone, unpack(rows)} end
  if room <= 0 then return {'more', cursors[1], cursors[2], gone, unpack(rows)} end
  local ended = {}
  for source = 2, 1, -1 do
    local resumed = cursors[source]
    if resumed == 'end' then
      ended[source] = true
    elseif room > 0 then
      local reply = redis.call('XAUTOCLAIM', KEYS[source], group, me, leaseMs, resumed, 'COUNT', math.min(room, 50), 'JUSTID')
      cursors[source] = reply[1]
      if reply[1] == '0-0' then
        ended[source] = true
        cursors[source] = 'end'
      end
      for _, id in ipairs(reply[3] or {}) do
        gone[#gone + 1] = source
        gone[#gone + 1] = id
      end
      for _, id in ipairs(reply[2]) do
        if avoided[id] then redis.call('XCLAIM', KEYS[source], group, ':handback', 0, id, 'JUSTID')
        else take(source, id) end
      end
    end
  end
  if ended[1] and ended[2] then
    redis.call('HSET', info, ':sweep', at)
    return {'done', '0-0', '0-0', gone, unpack(rows)}
  end
  return {'more', cursors[1], cursors[2], gone, unpack(rows)}`,
)
