import { GROUPS, LESS, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * Pieces that the trim and its dry run share, so that the one does what the other has said.
 *
 * `boundsOf(settings)`: age, bytes and entries to keep. For each what the caller insists on, else what the stream's settings
 * say, else the default; infinite where none says anything. Read in the step that trims: one truth, in effect at once.
 *
 * `watermarkOf(stream, holds)`: the lowest over all groups of (oldest pending id, last delivered id), and over all replays that
 * read the stream of where they have read; the group that it is of, that group's oldest pending entry if it is that; by how
 * much MEMORY USAGE overstates: it counts a pending entry with about 1 000 bytes too many (measured on 7.0); and the replay
 * that it is of, in place of a group. nil for a stream without a group.
 *
 * `oldestBefore(target, most, page)`: ids from the oldest on, before target. Where there are more than `most`, or more
 * fields than a MiB, it stops early: then the second value is true and the last id is the first that was not counted.
 */
const RETENTION = `${GROUPS}${LESS}${NOW}
  local function boundsOf(settings)
    local stored = {}
    if settings then
      stored = redis.call('HMGET', settings, 'retention:maxAgeMs', 'retention:maxBytes', 'retention:maxEntries')
    end
    local bounds = {}
    for i = 1, 3 do
      local kept = stored[i] and stored[i]:match('^%d+$') or ''
      bounds[i] = tonumber(ARGV[i + 1]) or tonumber(kept) or tonumber(ARGV[i + 4]) or math.huge
    end
    return unpack(bounds)
  end
  local function watermarkOf(stream, holds)
    local found, names = groupsOf(stream)
    local watermark, holder, held
    local overstated = 0
    for _, name in ipairs(names) do
      overstated = overstated + found[name].pending * 1000
      local low = found[name]['last-delivered-id']
      local first = redis.call('XPENDING', stream, name, '-', '+', 1)[1]
      if first and less(first[1], low) then low = first[1] end
      if not watermark or less(low, watermark) then
        watermark, holder, held = low, name, first and first[1] == low and first
      end
    end
    local replay
    local kept, at = watermark and holds and redis.call('HGETALL', holds) or {}, now()
    for i = 1, #kept, 2 do
      local cursor, untilMs = kept[i + 1]:match('^(%d+%-%d+) (%d+)$')
      if cursor and tonumber(untilMs) > at and less(cursor, watermark) then
        watermark, holder, held, replay = cursor, nil, nil, kept[i]
      end
    end
    return watermark, overstated, holder, held, replay
  end
  local function bytesOf(stream, overstated)
    local bytes = redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', 20)
    return type(bytes) == 'number' and math.max(0, bytes - overstated)
  end
  local function cutoffOf(maxAgeMs)
    return string.format('%.0f', math.max(0, now() - maxAgeMs)) .. '-0'
  end
  local function pageOf(bytes, entries)
    if not bytes or bytes == 0 then return 10 end
    return math.max(1, math.min(16, math.floor(1048576 * entries / bytes)))
  end
  local function oldestBefore(target, most, page)
    local ids, size, largest, from = {}, 0, 64, '-'
    while true do
      -- Steps are small and do not grow: how large the next entries are, nobody knows before.
      local asked = math.max(1, math.min(page, most + 1 - #ids, math.floor((1048576 - size) / largest)))
      local range = redis.call('XRANGE', KEYS[1], from, '(' .. target, 'COUNT', asked)
      for _, entry in ipairs(range) do
        ids[#ids + 1] = entry[1]
        if #ids > most or size > 1048576 then return ids, true end
        local before = size
        for i = 1, #entry[2] do size = size + #entry[2][i] end
        largest = math.max(largest, size - before)
      end
      if #range < asked then return ids, false end
      from = '(' .. ids[#ids]
    end
  end`

/**
 * Removes a bounded number of the oldest entries that every group has settled and that retention no longer keeps. The
 * watermark is worked out in the same step as the trim: between two steps another group could appear or an entry be claimed
 * back. A stream without a group is never trimmed: nobody has read it.
 *
 * XTRIM with LIMIT removes whole nodes only, and none if LIMIT is smaller than a node, so a node's rest goes by an exact trim
 * of as many. So does what is over the number of entries: XTRIM MAXLEN would not stop at the watermark.
 *
 * Without the keys of settings and holds only what the caller insists on counts. Returns {removed, watermark, more}: more = 1 if a
 * further call would remove something again.
 */
export const trim = script(
  'trim',
  `${RETENTION}
  -- KEYS stream [settings holds] | ARGV limit, then age bytes entries insisted on ('' = not), then their defaults ('' = none)
  local stream, limit = KEYS[1], tonumber(ARGV[1])
  local maxAgeMs, maxBytes, maxEntries = boundsOf(KEYS[2])
  local watermark, overstated = watermarkOf(stream, KEYS[3])
  if not watermark then return {0, '', 0} end
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not oldest or not less(oldest[1], watermark) then return {0, watermark, 0} end
  local entries = redis.call('XLEN', stream)
  local bytes = bytesOf(stream, overstated)
  local page = pageOf(bytes, entries)
  local function trimTo(target, most)
    local ids, cut = oldestBefore(target, most, page)
    return redis.call('XTRIM', stream, 'MINID', '=', cut and ids[#ids] or target), cut
  end
  local target = cutoffOf(maxAgeMs)
  if less(watermark, target) or (bytes and bytes > maxBytes) then target = watermark end
  if less(oldest[1], target) then
    local removed = redis.call('XTRIM', stream, 'MINID', '~', target, 'LIMIT', limit)
    if removed > 0 then return {removed, watermark, 1} end
    local rest, cut = trimTo(target, limit)
    local more = cut or (entries - rest > maxEntries and less(target, watermark))
    return {rest, watermark, more and 1 or 0}
  end
  if entries <= maxEntries then return {0, watermark, 0} end
  local removed, cut = trimTo(watermark, math.min(entries - maxEntries, limit))
  return {removed, watermark, cut and entries - removed > maxEntries and 1 or 0}`,
)

/**
 * What the trim would do: what the stream holds, the bounds, the watermark and whose it is, and how many of the oldest
 * entries lie before the cutoff of the age and before the watermark, counted among the first 500 only. Of a hundred groups,
 * how many entries lie up to where they have read: from that the rest is estimated. Writes nothing.
 *
 * Returns {now, entries, bytes or '', oldest id or '', newest id or '', {age, bytes, entries or ''}, holder, counted,
 * {id, entries up to it, …}}; holder = {group, watermark}, {group, watermark, consumer, idle ms, deliveries} for a pending
 * entry, {'', watermark, '<target stream> <id>'} for a replay, {} without a group; counted = {before the cutoff, before the watermark, 1 if that is all of them}.
 */
export const planTrim = script(
  'planTrim',
  `${RETENTION}
  -- KEYS stream settings holds | ARGV as above
  local stream = KEYS[1]
  local maxAgeMs, maxBytes, maxEntries = boundsOf(KEYS[2])
  local watermark, overstated, name, held, replay = watermarkOf(stream, KEYS[3])
  local entries = redis.call('XLEN', stream)
  local bytes = bytesOf(stream, overstated)
  local function bound(value) return value < math.huge and value or '' end
  local function idOf(range) return range[1] and range[1][1] or '' end
  local oldest = idOf(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1))
  local newest = idOf(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1))
  local holder, counted, read = {}, {0, 0, 1}, {}
  if watermark then
    holder = {name or '', watermark, replay}
    if held then holder = {name, watermark, held[2], held[3], held[4]} end
    if oldest ~= '' and less(oldest, watermark) then
      local ids, cut = oldestBefore(watermark, 500, pageOf(bytes, entries))
      local cutoff = cutoffOf(maxAgeMs)
      counted = {0, cut and #ids - 1 or #ids, cut and 0 or 1}
      for i = 1, counted[2] do
        if less(ids[i], cutoff) then counted[1] = i end
      end
    end
    local found, names = groupsOf(stream)
    for i = 1, math.min(#names, 100) do
      local group = found[names[i]]
      if group.lag then
        read[#read + 1] = group['last-delivered-id']
        read[#read + 1] = entries - group.lag
      end
    end
  end
  local bounds = {bound(maxAgeMs), bound(maxBytes), bound(maxEntries)}
  return {now(), entries, bytes and bytes > 0 and bytes or '', oldest, newest, bounds, holder, counted, read}`,
)
