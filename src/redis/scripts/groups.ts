import { KEY_NAMES } from '../keys.ts'
import { AT_END, GROUPS, NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * Makes a group and its redelivery stream, and writes the settings that it is given; those that it is not given the first
 * worker writes. Whether it is there already is seen in the same step: two that make it at once must not both be told that
 * they did, each with a start of its own. A floor that is left of a group of that name is set anew: where it starts was said.
 * `start` stays for as long as the group lives: what the stream had before was never the group's. No beat is written: the
 * group counts as one that never had a worker.
 *
 * Returns {'created', floor}, or {'exists'} or {'type', kind of the stream's key}; nothing is written in these cases.
 */
export const createGroup = script(
  'createGroup',
  `${GROUPS}${AT_END}${KEY_NAMES}
  -- KEYS stream redelivery settings | ARGV group start('0' | '$') fieldPrefix leaseMs maxDeliveries ('' = not given)
  local stream, redelivery, settings = KEYS[1], KEYS[2], KEYS[3]
  local group, start, prefix = ARGV[1], ARGV[2], ARGV[3]
  local kind = redis.call('TYPE', stream).ok
  if kind ~= 'none' and kind ~= 'stream' then return {'type', kind} end
  if groupsOf(stream)[group] then return {'exists'} end
  local hasRedelivery = groupsOf(redelivery)[group]
  redis.call('HLEN', settings)
  redis.call('XACK', stream, group, '0-1') -- under OOM a first harmless write lets the others pass
  if start == '$' then createAtEnd(stream, group) else redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM') end
  if not hasRedelivery then redis.call('XGROUP', 'CREATE', redelivery, group, '0', 'MKSTREAM') end
  redis.pcall('HDEL', ofGroup(baseOf(settings), group, 'order'), ':stream')
  local floor = groupsOf(stream)[group]['last-delivered-id']
  redis.call('HSET', settings, prefix .. 'floor', floor, prefix .. 'start', floor)
  redis.call('HDEL', settings, 'removed:' .. group)
  if ARGV[4] ~= '' then redis.call('HSET', settings, prefix .. 'leaseMs', ARGV[4]) end
  if ARGV[5] ~= '' then redis.call('HSET', settings, prefix .. 'maxDeliveries', ARGV[5]) end
  return {'created', floor}`,
)

/**
 * Removes a group with all that is its own, so that its name is unknown again: the group of the stream, its keys, its
 * settings. One step: a worker that joined between two of them would be left with half a group. Refused, unless forced,
 * while a worker was heard of within presentMs; scores in the future are of a server clock that has jumped back since.
 *
 * A worker that is still there, forced or frozen, makes the group again when it finds it gone. Where the group had a worker
 * in the last day it is written down up to where the stream was: from there on that worker goes on, and does not run all
 * of the history once more.
 *
 * The keys are unlinked, which costs the same however much they hold. Returns {'removed', groups left}, {'alive', workers},
 * or {'gone'} if neither the group nor settings of it are there.
 */
export const removeGroup = script(
  'removeGroup',
  `${GROUPS}${NOW}
  -- KEYS stream settings workers info, then all keys of the group | ARGV group fieldPrefix presentMs force(1|0)
  local stream, settings, workers, info = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
  local group, prefix, presentMs = ARGV[1], ARGV[2], tonumber(ARGV[3])
  local found, names = groupsOf(stream)
  local own, removed = {}, {}
  for _, field in ipairs(redis.call('HKEYS', settings)) do
    if field:sub(1, #prefix) == prefix then own[#own + 1] = field end
    if field:sub(1, 8) == 'removed:' then removed[#removed + 1] = field end
  end
  if not found[group] and #own == 0 then return {'gone'} end
  local at = now()
  local from, to = string.format('%.0f', at - presentMs), string.format('%.0f', at + presentMs)
  local alive = redis.call('ZCOUNT', workers, from, to)
  if alive > 0 and ARGV[4] ~= '1' then return {'alive', alive} end
  if found[group] then redis.call('XGROUP', 'DESTROY', stream, group) end
  local beat = tonumber(redis.call('HGET', info, ':beat') or 0)
  redis.call('UNLINK', unpack(KEYS, 3))
  -- Names that are made anew with every deploy must not pile up: their workers are long gone.
  if #removed >= 100 then redis.call('HDEL', settings, unpack(removed, 1, math.min(#removed, 1000))) end
  if found[group] and at - beat < 86400000 then
    redis.call('HSET', settings, 'removed:' .. group, fields(redis.call('XINFO', 'STREAM', stream))['last-generated-id'])
  end
  if #own > 0 then redis.call('HDEL', settings, unpack(own)) end
  return {'removed', #names - (found[group] and 1 or 0)}`,
)
