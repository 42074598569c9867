import { KEY_NAMES } from '../keys.ts'
import { FLOOR, LESS, NOW, WALK } from './lua.ts'
import { script } from './script.ts'

/**
 * `countIn(key, from, to)`: entries of a range, oldest first: at most 500, and no more than about 1 MiB beyond one entry, for
 * XRANGE brings their payloads into the script. Gives their number, the first and last id, and where to go on, or nil at the
 * end.
 */
const COUNT = `${WALK}
  local function countIn(key, from, to)
    local counted, first, last = 0, '', ''
    local function count(entry)
      if counted == 0 then first = entry[1] end
      counted, last = counted + 1, entry[1]
    end
    local next, refusal = walk('XRANGE', key, from, to, 500, count)
    if refusal then error(refusal.err) end
    return counted, first, last, next
  end`

/** `aliveOf(workers, at, presentMs)`: workers heard of lately. Scores in the future are of a clock that has jumped back since. */
const ALIVE = `
  local function aliveOf(workers, at, presentMs)
    return redis.call('ZCOUNT', workers, string.format('%.0f', at - presentMs), string.format('%.0f', at + presentMs))
  end`

/**
 * Where a group is, and what a rewind to toId would find. All of it is of one moment: how many entries the group has read
 * says something only together with the last one that it was given.
 *
 * Returns {} without the group, else {now, last delivered id, entries read or '', lag or '', first unread id or '', entries
 * added or '' before Redis 7.0, oldest id or '', entries, live workers, pending entries behind toId, at most 501}.
 */
export const lookBack = script(
  'lookBack',
  `${FLOOR}${NOW}${ALIVE}
  -- KEYS stream workers | ARGV group toId presentMs
  local stream, group, toId = KEYS[1], ARGV[1], ARGV[2]
  local found = groupsOf(stream)[group]
  if not found then return {} end
  local at, last = now(), found['last-delivered-id']
  local info = fields(redis.call('XINFO', 'STREAM', stream))
  local range = redis.pcall('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)
  local unread = not range.err and range[1]
  local lag = found.lag or ''
  if not unread then lag = 0 elseif lag == 0 then lag = '' end
  local oldest = info['first-entry'] and info['first-entry'][1] or ''
  local held = redis.pcall('XPENDING', stream, group, '(' .. toId, last, 501)
  return {at, last, found['entries-read'] or '', lag, unread and unread[1] or '', info['entries-added'] or '', oldest,
    info.length, aliveOf(KEYS[2], at, tonumber(ARGV[3])), held.err and 0 or #held}`,
)

/**
 * Counts a page of a range. Returns {entries, first id, last id, where to go on or '', entries added so far or '' before Redis
 * 7.0}: the last of one moment with the count, so that with a range that has no end both say how many there were before it.
 */
export const countEntries = script(
  'countEntries',
  `${FLOOR}${COUNT}
  -- KEYS stream | ARGV from to
  if redis.call('EXISTS', KEYS[1]) == 0 then return {0, '', '', '', ''} end
  local counted, first, last, next = countIn(KEYS[1], ARGV[1], ARGV[2])
  local info = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
  return {counted, first, last, next or '', info['entries-added'] or ''}`,
)

/**
 * Sets a group back to toId: everything behind it is delivered again. One step, for in between a worker could read on, or
 * retention take away what is to run again, and a caller that dies must leave the group as it was or as it shall be.
 *
 * What is pending behind toId is settled here and delivered again like the rest: left pending it would be claimed, and run
 * once as claimed and once more as read. At most 500 of these, else nothing is done. What is pending up to toId stays so.
 * The redelivery stream is not touched: what waits there is no part of the history.
 *
 * lookedMs is when the caller first looked: a rewind to the same entry that was noted since then is the caller's own, whose
 * answer was lost, or another's of the same kind. Both have done what was asked, and doing it again would run jobs twice.
 * `rewound` keeps the ids of those, the last 5 000: an audit must know that they have not ended as often as they were delivered.
 * Lag stays known through ENTRIESREAD, which Redis takes from 7.0 on.
 *
 * Returns {'rewound', last delivered before, entries that were delivered after countedTo, pending ones settled, lag or '',
 * live workers}, {'same', last delivered before}, {'gone'}, {'alive', workers}, {'moved'} if the group is elsewhere by now,
 * {'trimmed', oldest id behind toId or ''}, {'pending', pending entries behind toId}. Nothing was written but with 'rewound'.
 */
export const setBack = script(
  'setBack',
  `${FLOOR}${LESS}${NOW}${COUNT}${ALIVE}${KEY_NAMES}
  -- KEYS stream settings workers
  -- ARGV group fieldPrefix presentMs force(1|0) toId firstId countedTo entriesRead('' = not known) lookedMs
  local stream, settings, workers = KEYS[1], KEYS[2], KEYS[3]
  local group, prefix, toId, firstId, countedTo = ARGV[1], ARGV[2], ARGV[5], ARGV[6], ARGV[7]
  local found = groupsOf(stream)[group]
  if not found then return {'gone'} end
  local noted = redis.call('HGET', settings, prefix .. 'rewinds') or ''
  local notedMs, notedTo, notedFrom = noted:match('(%d+):(%d+%-%d+):(%d+%-%d+)$')
  if notedTo == toId and tonumber(notedMs) >= tonumber(ARGV[9]) and not less(notedFrom, countedTo) then
    return {'same', notedFrom}
  end
  local at = now()
  local alive = aliveOf(workers, at, tonumber(ARGV[3]))
  if alive > 0 and ARGV[4] ~= '1' then return {'alive', alive} end
  local last, further = found['last-delivered-id'], 0
  if less(last, countedTo) then return {'moved'} end
  local first = redis.call('XRANGE', stream, '(' .. toId, '+', 'COUNT', 1)[1]
  if not first or first[1] ~= firstId then return {'trimmed', first and first[1] or ''} end
  if last ~= countedTo then
    local counted, _, _, next = countIn(stream, '(' .. countedTo, last)
    if next then return {'moved'} end
    further = counted
  end
  local held = redis.call('XPENDING', stream, group, '(' .. toId, last, 501)
  if #held > 500 then return {'pending', #held} end

  redis.call('XACK', stream, group, '0-1') -- under OOM a first harmless write lets the others pass
  local ids = {}
  for i = 1, #held do ids[i] = held[i][1] end
  if #ids > 0 then redis.call('XACK', stream, group, unpack(ids)) end
  if ARGV[8] == '' then redis.call('XGROUP', 'SETID', stream, group, toId)
  else redis.call('XGROUP', 'SETID', stream, group, toId, 'ENTRIESREAD', ARGV[8]) end
  -- Jobs with a key are lined up anew, in their order: those that were not settled would else be in front of all the others.
  redis.pcall('HDEL', ofGroup(baseOf(settings), group, 'order'), ':stream')
  local notes = {}
  for note in noted:gmatch('%S+') do notes[#notes + 1] = note end
  notes[#notes + 1] = string.format('%.0f', at) .. ':' .. toId .. ':' .. last
  local kept = table.concat(notes, ' ', math.max(1, #notes - 99))
  if #ids > 0 then
    local rewound = {}
    for id in (redis.call('HGET', settings, prefix .. 'rewound') or ''):gmatch('%S+') do rewound[#rewound + 1] = id end
    for i = 1, #ids do rewound[#rewound + 1] = ids[i] end
    redis.call('HSET', settings, prefix .. 'rewound', table.concat(rewound, ' ', math.max(1, #rewound - 4999)))
  end
  -- A group that vanishes is made again at its floor: it must not be in front of what is to run again.
  redis.call('HSET', settings, prefix .. 'floor', floorOf(stream, group) or '0-0', prefix .. 'rewinds', kept)
  return {'rewound', last, further, #ids, groupsOf(stream)[group].lag or '', alive}`,
)
