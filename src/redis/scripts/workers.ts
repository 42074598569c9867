import { GROUPS, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * Who works for a group: the workers on its list, the latest heard of first, at most `most`, and the consumers that hold
 * entries on the stream or the redelivery stream, at most `most` each, whether or not they are on the list: a worker that
 * was killed leaves its entries behind. Nothing moves.
 *
 * Returns {now, workers on the list, {name, last pulse ms, …}, held on the stream, held on the redelivery stream, {name,
 * about, …}}, held = {consumer, entries, idle ms, …}. Only {} where the stream has no such group.
 */
export const listWorkers = script(
  'listWorkers',
  `${GROUPS}${NOW}
  -- KEYS stream redelivery workers info | ARGV group most
  local group, most = ARGV[1], tonumber(ARGV[2])
  if not groupsOf(KEYS[1])[group] then return {} end
  local listed = redis.call('ZREVRANGE', KEYS[3], 0, most - 1, 'WITHSCORES')
  local names, isNamed, heard = {}, {}, {}
  local function note(name)
    if not isNamed[name] and name ~= ':handback' then names[#names + 1] = name end
    isNamed[name] = true
  end
  for i = 1, #listed, 2 do
    note(listed[i])
    heard[#heard + 1] = listed[i]
    heard[#heard + 1] = string.format('%.0f', listed[i + 1])
  end
  local function heldOn(key)
    local held = {}
    if not groupsOf(key)[group] then return held end
    for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
      local consumer = fields(flat)
      if consumer.pending > 0 and #held < most * 3 then
        note(consumer.name)
        held[#held + 1] = consumer.name
        held[#held + 1] = consumer.pending
        held[#held + 1] = consumer.idle
      end
    end
    return held
  end
  local onStream, onRedelivery = heldOn(KEYS[1]), heldOn(KEYS[2])
  local about = {}
  for first = 1, #names, 500 do
    local last = math.min(first + 499, #names)
    for i, told in ipairs(redis.call('HMGET', KEYS[4], unpack(names, first, last))) do
      about[#about + 1] = names[first + i - 1]
      about[#about + 1] = told or ''
    end
  end
  return {now(), redis.call('ZCARD', KEYS[3]), heard, onStream, onRedelivery, about}`,
)

/**
 * What the workers of a group say of themselves that were heard of less than presentMs ago, at most `most` of them. Nothing moves,
 * and a worker may ask it of the others. Returns {name, about, …}.
 */
export const listAlive = script(
  'listAlive',
  `${NOW}
  -- KEYS workers info | ARGV presentMs most
  local at, presentMs, told = now(), tonumber(ARGV[1]), {}
  local from, to = string.format('%.0f', at - presentMs), string.format('%.0f', at + presentMs)
  local names = redis.call('ZRANGEBYSCORE', KEYS[1], from, to, 'LIMIT', 0, ARGV[2])
  if #names == 0 then return told end
  for i, about in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do
    told[#told + 1] = names[i]
    told[#told + 1] = about or ''
  end
  return told`,
)
