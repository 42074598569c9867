import { NOW } from './lua.ts'
import { script } from './script.ts'

/**
 * `pageOf(command)`: a page of a stream: at most 500 entries, and no more than about 1 MiB beyond one entry, in steps that grow
 * only while the entries are small. One XRANGE with a COUNT would bring as many payloads as it says, however large.
 */
const pageOf = (command: 'XRANGE' | 'XREVRANGE') => `
  -- KEYS stream | ARGV from to most
  local from, to, most = ARGV[1], ARGV[2], math.min(tonumber(ARGV[3]), 500)
  local page, got, bytes, largest, count = {''}, 0, 0, 64, math.min(16, most)
  while true do
    -- The highest and the lowest id there is have nothing beside them, and asking for it is an error.
    local rows = redis.pcall('${command}', KEYS[1], from, to, 'COUNT', count)
    if rows.err then
      if from:sub(1, 1) == '(' and rows.err:find('ID for the interval', 1, true) then return page end
      return rows
    end
    for i = 1, #rows do
      local entry, size = rows[i], 0
      for f = 1, #entry[2] do size = size + #entry[2][f] end
      bytes = bytes + size
      if size > largest then largest = size end
      page[#page + 1] = entry
    end
    got = got + #rows
    if #rows < count then return page end
    from = '(' .. rows[#rows][1]
    if got >= most or bytes >= 1048576 then
      page[1] = from
      return page
    end
    count = math.max(1, math.min(count * 8, most - got, math.floor((1048576 - bytes) / largest)))
  end`

/** A page, oldest first. Returns {where to go on or '', {id, fields}, …}. */
export const readPage = script('readPage', pageOf('XRANGE'))

/** A page, newest first: `from` is the higher end. Returns the same. */
export const readPageBack = script('readPageBack', pageOf('XREVRANGE'))

/**
 * How far the history of a stream goes. Returns {kind} where the key is missing ('none') or no stream, else {'stream', now,
 * entries, oldest id or '', newest id or '', 1 if entries were removed | 0 | '' if the server does not tell, last id given}.
 */
export const readHistory = script(
  'readHistory',
  `${NOW}
  -- KEYS stream
  local kind = redis.call('TYPE', KEYS[1]).ok
  if kind ~= 'stream' then return {kind} end
  local flat, info = redis.call('XINFO', 'STREAM', KEYS[1]), {}
  for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
  local added, removed = info['entries-added'], ''
  if added then removed = added > info.length and 1 or 0 end
  local function idOf(entry) return entry and entry[1] or '' end
  local oldest, newest = idOf(info['first-entry']), idOf(info['last-entry'])
  return {'stream', now(), info.length, oldest, newest, removed, info['last-generated-id']}`,
)
