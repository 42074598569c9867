import { completing } from './delivery.ts'
import { schedule } from './publish.ts'
import { script } from './script.ts'

/** What of a target is not as it must be for an append: told before anything is written for a job that goes there. */
const TARGETS = `
  local lastMs = '18446744073709551615-0'
  local function faultOf(target)
    local wanted = {stream = 'stream', scheduled = 'zset', jobs = 'hash', settings = 'hash'}
    for name, type in pairs(wanted) do
      local kind = redis.call('TYPE', target[name]).ok
      if kind ~= type and kind ~= 'none' then return 'WRONGTYPE the key ' .. target[name] .. ' holds a ' .. kind end
      -- Asked for the entry that has it: XINFO brings the first and the last one, each of which may be a MiB.
      if name == 'stream' and kind == type and redis.call('XRANGE', target.stream, lastMs, '+', 'COUNT', 1)[1] then
        return 'the stream has given the last id that there is'
      end
    end
    -- Tried on what is not there: a user who may not do it is refused before anything is written.
    local allowed = redis.pcall('ZADD', target.scheduled, 'XX', 0, '')
    return type(allowed) == 'table' and allowed.err or nil
  end
  for n = 1, targetCount do
    local at = #KEYS - 4 * (targetCount - n + 1)
    local target = {stream = KEYS[at + 1], scheduled = KEYS[at + 2], jobs = KEYS[at + 3], settings = KEYS[at + 4]}
    target.fault = faultOf(target)
    targets[n] = target
  end`

/** `publishAll(from, count)`: appends what one job publishes, all or nothing; gives the ids, or '!' and why there is nothing. */
const PUBLISH_ALL = `
  local function dueOf(text)
    return text ~= '' and tonumber(text) + (text:sub(1, 1) == '+' and nowMs or 0) or 0
  end
  ${schedule('into.scheduled', 'into.jobs')}
  local function append(at)
    local dueMs, first, last = dueOf(ARGV[at + 1]), at + 3, at + 2 + tonumber(ARGV[at + 2])
    if dueMs <= nowMs then return redis.pcall('XADD', into.stream, '*', unpack(ARGV, first, last)) end
    return schedule(dueMs, {unpack(ARGV, first, last)})
  end
  -- What was checked should not fail. If it does all the same, nobody has seen yet what is taken back: the script is one step.
  local function takeBack(made)
    for _, one in ipairs(made) do
      local jobId = one.id:match('^@(.*)')
      if jobId then
        redis.call('ZREM', one.into.scheduled, jobId)
        redis.call('HDEL', one.into.jobs, jobId)
      else
        redis.call('XDEL', one.into.stream, one.id)
      end
    end
  end
  local function publishAll(from, count)
    local at, ids, made, numbers = from, {}, {}, {}
    for n = 1, count do
      local target = targets[tonumber(ARGV[at])]
      local fault = target.fault
      if not fault and dueOf(ARGV[at + 1]) > nowMs then
        -- Fails on a counter that is none: before anything is appended. Groups do not know their lag behind what was taken back.
        numbers[n] = redis.pcall('HINCRBY', target.settings, 'scheduled-seq', 1)
        fault = type(numbers[n]) ~= 'number' and numbers[n].err
      end
      if fault then return '!' .. ARGV[at] .. ' ' .. fault end
      at = at + 3 + tonumber(ARGV[at + 2])
    end
    at = from
    for n = 1, count do
      into, number = targets[tonumber(ARGV[at])], 999999999999999 + (numbers[n] or 0)
      local id = append(at)
      if type(id) ~= 'string' then
        takeBack(made)
        return '!' .. ARGV[at] .. ' ' .. id.err
      end
      ids[n], made[n] = id, {id = id, into = into}
      at = at + 3 + tonumber(ARGV[at + 2])
    end
    return table.concat(ids, ' ')
  end`

/**
 * The same as settleCompleted, for jobs whose runs have published: a job that is still pending is acked, and what it publishes
 * is appended to streams of the same slot, in one step. So it is there exactly if this is the completion that counts: a late one,
 * or the same batch sent again, finds the job settled and appends nothing.
 *
 * Whether a job is pending is asked before the append, and acked behind it: an append that is refused must leave the job as it
 * was. A job whose target cannot take it (another type of key, no ids left) is left out, pending, and told so; the others
 * of the batch go on. maxBacklog does not hold it back: a worker that must end its jobs for there to be room would wait for
 * itself. The first write is harmless: under OOM it lets the others pass, and settling must get through.
 *
 * A publish is: target (1 …), due or '', width, field, value, …; due is a time in ms since the epoch, or +ms from now. With the
 * acks at most 500 entries and 1 MiB a call, beyond one job. Returns what settleCompleted does and for each job, in the
 * order in which they were given, the ids of what it has published, those of jobs for later behind '@'; '' if it was not
 * pending any more; '!', the target and why it was left out.
 */
export const settlePublishing = script(
  'settlePublishing',
  // KEYS … as settleCompleted, then by target: stream scheduled jobs settings
  // ARGV … as settleCompleted, then the publishes, where they begin, how many targets there are
  completing({
    keys: '4 * tonumber(ARGV[#ARGV])',
    lastAt: 'tonumber(ARGV[#ARGV - 1]) - 1',
    prepare: `
  redis.call('XACK', source, group, '0-1')
  local targetCount, nowMs, number, into, targets, answers = tonumber(ARGV[#ARGV]), now(), 0, nil, {}, {}${TARGETS}${PUBLISH_ALL}`,
    before: `
        local from, most, place = unpack(owns[i].publishes)
        -- Of a group that is gone nothing is pending.
        local isPending = redis.pcall('XPENDING', source, group, ids[i], ids[i], 1)[1]
        local answer = isPending and publishAll(lastAt + 1 + from, most) or ''
        local isLeft = answer:sub(1, 1) == '!'
        if isLeft then count = count - 1 end
        answers[place + 1] = answer`,
    unless: 'not isLeft and ',
    answer: ', answers',
  }),
)
