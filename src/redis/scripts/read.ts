import { NOW, WALK } from './lua.ts'
import { script } from './script.ts'

/**
 * `pageOf(command)`: a page of a stream: at most 500 entries, and no more than about 1 MiB beyond one entry. One XRANGE with
 * a COUNT would bring as many payloads as it says, however large.
 */
const pageOf = (command: 'XRANGE' | 'XREVRANGE') => `${WALK}
  -- KEYS stream | ARGV from to most
  local page = {''}
  local function add(entry) page[#page + 1] = entry end
  local next, refusal = walk('${command}', KEYS[1], ARGV[1], ARGV[2], math.min(tonumber(ARGV[3]), 500), add)
  page[1] = next or ''
  return refusal or page`

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
