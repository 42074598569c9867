import { GROUPS, LESS, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * A page of what a group has pending on the stream and on its redelivery stream, in the order of entry ids; nothing moves.
 * One step, so that an entry on its way from one to the other is told of once. Each entry is read by itself for its job's
 * name and id, and its payload stays here: at most 500 entries, and no more than about 1 MiB of them beyond one.
 *
 * An idle time is compared here, row by row: XPENDING with IDLE goes on until it has found what it was asked for, through a
 * million entries if need be. For the same reason a worker's entries are asked for by its name.
 *
 * Returns {now, lease ms or '', pending on the stream, pending on the redelivery stream, looked at, 1 if there is more | 0,
 * source of the last one looked at, its id, row, …}, source = 1 | 2, row = {source, id, worker, idle ms, deliveries, 1 if
 * the entry is there | 0, job name or '', job id or ''}. Only {} where the stream has no such group.
 */
export const pendingPage = script(
  'pendingPage',
  `${GROUPS}${NOW}${LESS}
  -- KEYS stream redelivery settings | ARGV group fromStream fromRedelivery most minIdleMs worker
  local group, most, minIdle, worker = ARGV[1], math.min(tonumber(ARGV[4]), 500), tonumber(ARGV[5]), ARGV[6]
  local onStream, onRedelivery = groupsOf(KEYS[1])[group], groupsOf(KEYS[2])[group]
  if not onStream then return {} end
  local function rowsOf(source, from)
    local asked = {'XPENDING', KEYS[source], group, from, '+', most + 1}
    if worker ~= '' then asked[7] = worker end
    -- The highest id there is has no successor, and asking for one is an error.
    local found = redis.pcall(unpack(asked))
    return found.err and {} or found
  end
  local lists = {rowsOf(1, ARGV[2]), onRedelivery and rowsOf(2, ARGV[3]) or {}}
  local at, looked, bytes, lastSource, lastId = {1, 1}, 0, 0, 0, ''
  local lease = redis.call('HGET', KEYS[3], 'group:' .. group .. ':leaseMs') or ''
  local rows = {}
  local function describe(source, row)
    local entry = redis.call('XRANGE', KEYS[source], row[1], row[1])[1]
    local name, id
    for f = 1, entry and #entry[2] - 1 or 0, 2 do
      local field, value = entry[2][f], entry[2][f + 1]
      bytes = bytes + #field + #value
      if field == 'job' then name = name or value:sub(1, 101)
      elseif field == 'id' then id = id or value:sub(1, 42) end
    end
    rows[#rows + 1] = {source, row[1], row[2], row[3], row[4], entry and 1 or 0, name or '', id or ''}
  end
  while looked < most and bytes < 1048576 do
    local first, second = lists[1][at[1]], lists[2][at[2]]
    if not first and not second then break end
    local source = (not second or first and not less(second[1], first[1])) and 1 or 2
    local row = lists[source][at[source]]
    at[source], looked, lastSource, lastId = at[source] + 1, looked + 1, source, row[1]
    if row[3] >= minIdle then describe(source, row) end
  end
  local more = (lists[1][at[1]] or lists[2][at[2]]) and 1 or 0
  local pending = onRedelivery and onRedelivery.pending or 0
  return {now(), lease, onStream.pending, pending, looked, more, lastSource, lastId, unpack(rows)}`,
)
