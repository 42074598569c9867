import { GROUPS, LESS, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * Removes a bounded number of the oldest entries that every group has settled and that retention no longer keeps. The
 * watermark, the lowest over all groups of (oldest pending id, last delivered id), is worked out in the same step as the
 * trim: between two steps another group could appear or an entry be claimed back. A stream without a group is never
 * trimmed: nobody has read it.
 *
 * MEMORY USAGE counts a pending entry with about 1 000 bytes too many (measured on 7.0), which is taken off again. XTRIM
 * with LIMIT removes whole nodes only, and none if LIMIT is smaller than a node, so a node's rest goes by an exact trim of as many.
 *
 * Returns {removed, watermark, more}: more = 1 if a further call would remove something again.
 */
export const trim = script(
  'trim',
  `${GROUPS}${LESS}${NOW}
  -- KEYS stream | ARGV maxAgeMs maxBytes limit
  local stream, maxAgeMs, maxBytes, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
  local found, names = groupsOf(stream)
  if #names == 0 then return {0, '', 0} end
  local watermark
  local overstated = 0
  for _, name in ipairs(names) do
    overstated = overstated + found[name].pending * 1000
    local low = found[name]['last-delivered-id']
    local first = redis.call('XPENDING', stream, name, '-', '+', 1)[1]
    if first and less(first[1], low) then low = first[1] end
    if not watermark or less(low, watermark) then watermark = low end
  end
  local target = watermark
  local cutoff = string.format('%.0f', now() - maxAgeMs) .. '-0'
  if less(cutoff, target) then target = cutoff end
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not oldest then return {0, watermark, 0} end
  local bytes = redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', 20)
  if type(bytes) == 'number' and bytes - overstated > maxBytes then target = watermark end
  if not less(oldest[1], target) then return {0, watermark, 0} end
  local removed = redis.call('XTRIM', stream, 'MINID', '~', target, 'LIMIT', limit)
  if removed > 0 then return {removed, watermark, 1} end
  local rest = redis.call('XRANGE', stream, '-', '(' .. target, 'COUNT', limit + 1)
  local more = #rest > limit
  if more then target = rest[#rest][1] end
  return {redis.call('XTRIM', stream, 'MINID', '=', target), watermark, more and 1 or 0}`,
)
