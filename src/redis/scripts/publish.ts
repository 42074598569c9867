import { script } from './script.ts'

/**
 * Starts a producer's sequence at 0, before its first batch. Answers 1, or 0 if the key exists already. It is confirmed
 * before anything is appended under it: only then does a missing key always mean "forgotten" and never "not yet there".
 */
export const openProducer = script(
  'openProducer',
  `
  -- KEYS producer | ARGV ttlMs
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
  redis.call('HSET', KEYS[1], 'seq', 0, 'ids', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  return 1`,
)

/**
 * Appends one batch to the stream and writes its sequence number with what became of each item, in one step, so that the
 * same batch sent again (a lost reply) answers with the same ids instead of appending twice.
 *
 * Returns {'done', ids} with a space between ids and '!' for an item that Redis refused, or {'stale'} for an older batch,
 * {'behind', stored} if the server lost batches, {'forgotten'} if the producer's key is gone. All is checked before the
 * first write, and the sequence is written before the first append: an append that fails in the middle cannot lead to a
 * resend that appends the others again.
 */
export const publishBatch = script(
  'publishBatch',
  `
  -- KEYS stream producer | ARGV seq ttlMs items, then per item: width, field, value, ...
  local stream, producer = KEYS[1], KEYS[2]
  local seq, items = tonumber(ARGV[1]), tonumber(ARGV[3])
  local kind = redis.call('TYPE', stream).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE the stream key holds a ' .. kind)
  end
  local stored = redis.call('HGET', producer, 'seq')
  if not stored then return {'forgotten'} end
  stored = tonumber(stored)
  if seq == stored then return {'done', redis.call('HGET', producer, 'ids')} end
  if seq < stored then return {'stale'} end
  if seq > stored + 1 then return {'behind', stored} end
  redis.call('HSET', producer, 'seq', seq, 'ids', '')
  redis.call('PEXPIRE', producer, ARGV[2])
  local ids, at = {}, 4
  for item = 1, items do
    local width = tonumber(ARGV[at])
    local id = redis.pcall('XADD', stream, '*', unpack(ARGV, at + 1, at + width))
    ids[item] = type(id) == 'string' and id or '!'
    at = at + width + 1
  end
  local outcomes = table.concat(ids, ' ')
  redis.call('HSET', producer, 'ids', outcomes)
  return {'done', outcomes}`,
)
