import { script } from './script.ts'

/**
 * The scripts of limits. All keys of a call are of one limiter, and so of one slot: a named limiter has a tag of its own, one
 * without a name has its stream's.
 */

/** No job may begin later after its slot, whatever its rate and cost: those that wait would wait for nothing. */
export const GRACE_MOST_US = 100_000

/**
 * Gives jobs their slots of a rate: GCRA (the generic cell rate algorithm), which needs one time per key. That time, `tat`, is when all that
 * was let in so far would be through if it came evenly; a job may begin when `tat` and its own cost are at most a burst ahead.
 *
 * - Who asks gets a slot at once, also one a little ahead, and waits for it by himself: nobody asks again and again. Only up
 *   to `most` ahead: what is further away is not booked, so that jobs which are lost or cancelled while they wait book
 *   nothing. Those are told when to come back. Beyond `near`, `tail` spreads these times over the backlog that was told so
 *   before; it is no booking, and at most five minutes behind the slots.
 * - A job begins somewhat later than its slot, by up to `grace`; who is later asks anew. It is booked as if it were that late: `tat` is
 *   brought to its slot and `grace` before its cost is added.
 * - What one call asks for of a key that was quiet begins at once, up to a whole burst: nothing from before can begin beside it.
 * - A `tat` further ahead than this limit can have brought it is one of a slower rate, or the clock was set back: it is
 *   brought near, for good where it is beyond the longest grace, or it would be as far ahead whenever somebody asks. What was
 *   told a time behind it is not waited for then.
 *
 * Why no window then holds more than a burst and its own time, whatever jobs cost and however late each is: of the jobs in a window let i
 * be the one that asked first and j the last. Booking i brought `tat` to the latest time of i, and each one since moved it by its cost
 * at least, so up to j they cost at most what `tat` is beyond the begin of i; and j begins no sooner than `tat` and its cost less a burst. A
 * j of a quiet key is with all of its call within one burst, and what asked before them costs no more than the time from i to its call.
 * No throughput is lost where `grace` is at most a burst without the job's cost: `tat` is then beyond what it is to be brought to.
 *
 * One step: two workers that read the same `tat` would both begin. KEYS may name a key twice, and the second ask then stands
 * behind the first. The last key is for a write that changes nothing: under OOM a first one lets the others pass, and a job that
 * was refused its slot would go to the scheduled set, which takes more memory than the slot.
 *
 * Returns {now in µs, then for each ask a state and µs}: 1 it is given, in so many µs (0 = now); 0 nothing is booked, come back
 * in so many; -1 the key holds what is none of ours, and nothing is known.
 */
export const reserveSlots = script(
  'reserveSlots',
  `
  -- KEYS slots... permits | ARGV mostUs nearUs, then per key: costUs burstUs graceUs how('look' = book nothing|'queue'|'keep' = tell no times behind each other)
  local time = redis.call('TIME')
  local at, most, near = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
  local reply = {at}
  redis.pcall('ZREM', KEYS[#KEYS], '')
  local function write(key, tat, tail)
    local leftMs = math.ceil((math.max(tat, tail) - at) / 1000) + 1000
    redis.call('SET', key, string.format('%.17g %.17g', tat, tail), 'PX', string.format('%.0f', leftMs))
  end
  local fresh = {} -- of keys that were quiet before this call: what it has given
  local function ask(key, cost, burst, grace, how)
    local kept = redis.pcall('GET', key)
    if type(kept) == 'table' then return -1, 0 end
    local tat, tail = (kept or '0 0'):match('^([%d.e+]+) ([%d.e+]+)$')
    tat, tail = tonumber(tat), tonumber(tail)
    if not tat or not tail then return -1, 0 end
    local isFar = tat > at + burst + ${GRACE_MOST_US} + most
    tat = math.min(tat, at + burst + grace + most)
    if isFar then
      tail = 0
      write(key, tat, tail)
    end
    if tat <= at then tat, fresh[key] = at, 0 end
    local isFresh = fresh[key] and fresh[key] + cost <= burst + 1 -- a µs for what was rounded in the sum
    local wait = isFresh and 0 or math.max(0, tat + cost - burst - at)
    if wait <= most then
      if how ~= 'look' then
        write(key, math.max(tat, at + wait + grace) + cost, tail)
        if fresh[key] then fresh[key] = fresh[key] + cost end
      end
      return 1, wait
    end
    if how == 'keep' or wait <= near then return 0, wait end
    tail = math.min(math.max(tail, tat) + cost, tat + cost + 300000000)
    write(key, tat, tail)
    return 0, tail - burst - at
  end
  for i = 1, #KEYS - 1 do
    local a = 4 * i - 1
    local state, wait = ask(KEYS[i], tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), ARGV[a + 3])
    reply[#reply + 1] = state
    reply[#reply + 1] = math.ceil(wait)
  end
  return reply`,
)

/**
 * Takes permits: one member each in the sorted set of a limiter's key, by when it is over unless it is renewed. What is over goes
 * first, so that a worker that went away holds nothing for longer than its lease. Taken twice by the same holder it is
 * the same permit, as after an answer that was lost.
 *
 * Returns for each ask: 1 taken | 0 none is free | -1 the key holds what is none of ours.
 */
export const takePermits = script(
  'takePermits',
  `
  -- KEYS permits... | ARGV leaseMs, then per key: most holder
  local time = redis.call('TIME')
  local at = time[1] * 1000 + math.floor(time[2] / 1000)
  local untilMs = string.format('%.0f', at + tonumber(ARGV[1]))
  local reply = {}
  for i = 1, #KEYS do
    local key, most, holder = KEYS[i], tonumber(ARGV[2 * i]), ARGV[2 * i + 1]
    local over = redis.pcall('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', at))
    if type(over) == 'table' then
      reply[i] = -1
    elseif redis.call('ZSCORE', key, holder) or redis.call('ZCARD', key) < most then
      redis.call('ZADD', key, untilMs, holder)
      -- Longer than the longest lease: the holders of a named limiter have different ones.
      redis.call('PEXPIRE', key, 172800000)
      reply[i] = 1
    else
      reply[i] = 0
    end
  end
  return reply`,
)

/**
 * Renews permits of jobs that run. One that is gone (its lease was over while Redis or its worker stood still, or Redis was emptied) is
 * not made anew here: this may come from another connection than the one that gives permits back, and later.
 *
 * Returns the numbers of those that are gone, from 1.
 */
export const renewPermits = script(
  'renewPermits',
  `
  -- KEYS permits... | ARGV leaseMs, then a holder per key
  local time = redis.call('TIME')
  local untilMs = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1]))
  local gone = {}
  redis.pcall('ZREM', KEYS[1], '') -- under OOM a first harmless write lets the others pass
  for i = 1, #KEYS do
    local kept = redis.pcall('ZSCORE', KEYS[i], ARGV[i + 1])
    if not kept then gone[#gone + 1] = i
    elseif type(kept) == 'string' then redis.call('ZADD', KEYS[i], untilMs, ARGV[i + 1]) end
  end
  return gone`,
)

/** Gives permits back. */
export const releasePermits = script(
  'releasePermits',
  `
  -- KEYS permits... | ARGV a holder per key
  for i = 1, #KEYS do redis.pcall('ZREM', KEYS[i], ARGV[i]) end
  return #KEYS`,
)
