import { KEY_NAMES } from '../keys.ts'
import { GROUPS } from './lua.ts'
import { RECORD } from './scheduled.ts'
import { script } from './script.ts'

/**
 * How somebody who published a job with `result` is told of its end. The answer is kept under a key of its own, and said in the
 * reply stream of the producer, in the step that settles the job: one that is acked has its answer, whatever dies then.
 */

/** Answers up to this many bytes are said in the reply stream whole; of longer ones it has the first line. */
const MOST_SAID_BYTES = 1024
/** About so many replies wait for a producer that does not read; it looks at the keys for those that were trimmed. */
const MOST_REPLIES = 4096
const REPLIES_TTL_MS = 3_600_000
/** How long it is noted where a job went that was published with a delay, unless it ends before: as long as its dead letter is kept. */
const PROMOTED_TTL_MS = 2_592_000_000

/**
 * `replyIn(flat, group)`: where an entry says that the end of its job in this group is to be told; nil for most. With group nil it
 * is of a job that no group has had. `tellEnd(base, group, jobId, reply, state, at, body)` tells it. Never fails: by then the job
 * has been settled, and what is only told of it must not have it settled again. Needs KEY_NAMES.
 *
 * `notePromoted(base, jobId, entry, at)`: a delayed job has come into the stream, as an entry of another id, by which alone it is found
 * there. Where its answer would be if it had ended before is noted what its entry is, as long as its answers are kept; of a dead one
 * longer, for it may be redriven.
 */
export const REPLY = `
  local function replyFrom(text, group)
    local to, only, ttlMs = text:match('^([%w_-]+) ([%w_.*-]+) (%d+)$')
    if not to or #to > 40 or #only > 64 or #ttlMs > 10 then return nil end
    if group and only ~= '*' and only ~= group then return nil end
    return {to = to, only = only, ttlMs = tonumber(ttlMs)}
  end
  local function replyIn(flat, group)
    local text
    for i = 1, #flat, 2 do
      if flat[i] == 'replay-of' then return nil end
      if flat[i] == 'reply' and not text then text = flat[i + 1] end
    end
    return text and replyFrom(text, group)
  end
  local function tellEnd(base, group, jobId, reply, state, at, body)
    local head = state .. ' ' .. string.format('%.0f', at) .. ' ' .. (group or ':')
    local text = head .. '\\n' .. body
    local key = group and ofGroup(base, group, 'result:' .. jobId) or base .. ':result:' .. jobId
    local ttlMs = math.max(1000, math.min(604800000, reply.ttlMs))
    redis.pcall('SET', key, text, 'PX', string.format('%.0f', ttlMs))
    if group and state ~= 'dead' and #(jobId:match('%d+$') or '') >= 16 then
      redis.pcall('PEXPIRE', base .. ':result:' .. jobId, string.format('%.0f', ttlMs))
    end
    local replies = base .. ':replies:' .. reply.to
    local said = #text <= ${MOST_SAID_BYTES} and text or head
    redis.pcall('XADD', replies, 'MAXLEN', '~', ${MOST_REPLIES}, '*', 'id', jobId, 'answer', said)
    redis.pcall('PEXPIRE', replies, ${REPLIES_TTL_MS})
  end
  local function notePromoted(base, jobId, entry, at)
    local text = 'promoted ' .. string.format('%.0f', at) .. ' :\\n' .. entry
    redis.pcall('SET', base .. ':result:' .. jobId, text, 'PX', ${PROMOTED_TTL_MS})
  end
  local function promotedIn(text) return text:match('^promoted %d+ :\\n(%d+%-%d+)$') end`

/**
 * Answers that were kept, for whoever did not hear of them or asks later. Of several groups the one that ended the job first
 * answers, unless one is named. For a job that was there already, `known` = 0 has its entry looked at: whether it was published with a result
 * at all, and with that of the group that is named, unless its entry is gone or may not be read. At most 500 keys and about 1 MiB a call: the answer may be shorter than the
 * question.
 *
 * Returns {text, 1 if it was asked for | 0 | -1 where that is not known} for each; '' where there is no answer.
 */
export const readResults = script(
  'readResults',
  `${KEY_NAMES}${GROUPS}${RECORD}${REPLY}
  -- KEYS stream settings scheduledJobs | ARGV per job: id group('' = any) known(1|0)
  local stream, base = KEYS[1], baseOf(KEYS[2])
  local told, looked, bytes, names = {}, 0, 0, nil
  local function atOf(text) return tonumber(text:match('^[a-z-]+ (%d+) ')) or math.huge end
  local function kept(key)
    looked = looked + 1
    local text = redis.pcall('GET', key)
    return type(text) == 'string' and text or nil
  end
  local function isAskedFor(id, entryId, group)
    local found = redis.pcall('XRANGE', stream, entryId, entryId)
    local flat = not found.err and found[1] and found[1][2]
    if not flat then
      local record = redis.pcall('HGET', KEYS[3], id)
      local _, fields = recordOf(type(record) == 'string' and record or nil)
      flat = fields
    end
    if not flat then return -1 end
    for i = 1, #flat do bytes = bytes + #flat[i] end
    return replyIn(flat, group ~= '' and group or nil) and 1 or 0
  end
  for at = 1, #ARGV, 3 do
    if looked >= 500 or bytes >= 1048576 then break end
    local id, group, best = ARGV[at], ARGV[at + 1], nil
    if group == '' and not names then
      local _, all = groupsOf(stream)
      names = {unpack(all, 1, math.min(#all, 400))}
    end
    for _, name in ipairs(group == '' and names or {group}) do
      local text = kept(ofGroup(base, name, 'result:' .. id))
      if text and (not best or atOf(text) < atOf(best)) then best = text end
    end
    best = best or kept(base .. ':result:' .. id)
    local entryId = best and promotedIn(best)
    if entryId then best = nil end
    if best then bytes = bytes + #best end
    told[#told + 1] = {best or '', best and 1 or ARGV[at + 2] == '1' and -1 or isAskedFor(id, entryId or id, group)}
  end
  return told`,
)
