import { script } from './script.ts'

/**
 * A page of a stream, newest first: at most 500 entries, and no more than about 1 MiB beyond one entry, in steps that grow
 * only while the entries are small. Returns {where to go on or '', {id, fields}, …}.
 */
export const readPageBack = script(
  'readPageBack',
  `
  -- KEYS stream | ARGV to from
  local to, from = ARGV[1], ARGV[2]
  local page, got, bytes, largest, count = {''}, 0, 0, 64, 16
  while true do
    -- The lowest id there is has no predecessor, and asking for one is an error.
    local rows = redis.pcall('XREVRANGE', KEYS[1], to, from, 'COUNT', count)
    if rows.err then
      if to:sub(1, 1) == '(' and rows.err:find('ID for the interval', 1, true) then return page end
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
    to = '(' .. rows[#rows][1]
    if got >= 500 or bytes >= 1048576 then
      page[1] = to
      return page
    end
    count = math.max(1, math.min(count * 8, 500 - got, math.floor((1048576 - bytes) / largest)))
  end`,
)
