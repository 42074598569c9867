/**
 * Whether a worker works: decided here, from counters, without a clock or Redis.
 *
 * A worker is not live only if restarting it would help. That is so in two cases:
 *
 * - `stuck`: Redis answers a connection made just now, and all the same no read of this worker completed for 30 s; or, while
 *   it has no room to read, no round of renewals did. Its own connections or loops are broken.
 * - `stalled`: the event loop of its main thread has not turned for `stallMs`.
 *
 * Redis being away, or refusing to be written to, is neither: a restart would cure nothing, and a restart of all workers at once would lose their jobs' time.
 * It only makes the worker not ready. So the 30 s count no time in which Redis did not answer; nor time in which the event
 * loop stood still, since reads are made there; nor time without room to read in which renewals went on.
 *
 * The keeper's thread looks a few times a second. It compares counters between looks, and no clock reading crosses threads.
 */

/** The states in which a keeper watches. */
export type WatchedState = 'starting' | 'running' | 'draining'

/** What both threads write down about the worker. Counters wrap around and are only compared for change. */
export interface Signs {
  /** Turns of the main thread's event loop. */
  readonly ticks: number
  /** Reads that completed, with entries or without. */
  readonly reads: number
  /** Rounds of renewals that completed. */
  readonly renewals: number
  /** Replies that the keeper got. */
  readonly answers: number
  /** Reads and renewals that Redis answered with a no (read-only, loading …). */
  readonly refusals: number
  /** Whether the fetcher has room to read. */
  readonly hasRoom: boolean
  readonly state: WatchedState
}

/** One look at them. */
export interface Look extends Signs {
  /** Since the look before, in ms. */
  readonly elapsedMs: number
  /** What a probe (a connection of its own, a PING) brought since the look before, if one ended. */
  readonly probe: 'answered' | 'failed' | undefined
  readonly stallMs: number
  readonly leaseMs: number
}

/** What the looks so far say. */
export interface Condition {
  readonly stalled: boolean
  readonly stuck: false | 'reads' | 'renewals'
  /** Whether a round trip completed within `READY_MS`. */
  readonly reached: boolean
}

/** What is known after a look, for the next one. */
export interface Judged extends Condition {
  readonly signs: Signs | undefined
  /** For how long the event loop has not turned. */
  readonly silentMs: number
  /** For how long what should be done was not done. */
  readonly idleMs: number
  /** For how long no round trip completed. */
  readonly unreachedMs: number
  /** The last probe failed, and nothing got through since. */
  readonly isAway: boolean
  /** A probe should be made now. */
  readonly wantsProbe: boolean
}

export interface WorkerHealth {
  /** False only if a restart of the process would help; never because Redis is away. */
  readonly live: boolean
  /** Running, live, and in touch with Redis within the last 5 s. */
  readonly ready: boolean
  readonly state: 'new' | 'starting' | 'running' | 'draining' | 'stopped'
  /** Why it is not live or not ready; empty if it is both. */
  readonly reasons: readonly string[]
}

/** How long nothing may be read while Redis answers. An idle read returns every 5 s, one on a dead connection fails after 8. */
const STUCK_MS = 30_000
/** Without progress for this long Redis is asked on a new connection. An idle worker reads twice meanwhile: it never asks. */
const PROBE_AFTER_MS = 10_000
/** Pulses are at most 1 s apart: five were missed. Three would turn red for one slow script of somebody else. */
const READY_MS = 5000
/** The loop ticks ten times a second. After this long without, reads say nothing: only `stallMs` judges. */
const STANDSTILL_MS = 2000
/** A look counts at most this: the process, or the whole machine, was suspended in between and did nothing wrong. */
const LOOK_MOST_MS = 1000

/** Nothing found against a worker: of one that has just joined its group, which is a round trip. */
export const SOUND: Condition = { stalled: false, stuck: false, reached: true }

/** What is known before the first look. A keeper that replaces another knows of no round trip yet. */
export function unjudged({ hasJustJoined }: { hasJustJoined: boolean }): Judged {
  const unreachedMs = hasJustJoined ? 0 : Infinity
  return { ...SOUND, signs: undefined, silentMs: 0, idleMs: 0, unreachedMs, isAway: false, wantsProbe: false }
}

/** The next look's judgement. */
export function judge(before: Judged, look: Look): Judged {
  const { ticks, reads, renewals, answers, refusals, hasRoom, state } = look
  const signs: Signs = { ticks, reads, renewals, answers, refusals, hasRoom, state }
  const seen = before.signs ?? signs
  const countedMs = Math.min(look.elapsedMs, LOOK_MOST_MS)
  const hasRead = reads !== seen.reads

  const silentMs = ticks !== seen.ticks ? 0 : before.silentMs + countedMs
  const stoodStill = Math.max(silentMs, before.silentMs) > STANDSTILL_MS
  const unreachedMs = hasRead || answers !== seen.answers ? 0 : before.unreachedMs + look.elapsedMs
  const reached = unreachedMs <= READY_MS

  // A no is an answer: what it came over works, and after a restart Redis would refuse the same.
  const wasRefused = refusals !== seen.refusals
  const hasWorked = hasRead || wasRefused || (!hasRoom && renewals !== seen.renewals)
  const isAway = !hasWorked && look.probe !== 'answered' && (look.probe === 'failed' || before.isAway)
  const isExpected = state === 'running' && !stoodStill && hasRoom === seen.hasRoom
  const startsAnew = !isExpected || hasWorked || isAway || before.isAway
  const idleMs = startsAnew ? 0 : before.idleMs + countedMs
  // Rounds of renewals are a third of a lease apart, and leases may be long.
  const factor = hasRoom ? 1 : Math.max(1, (1.5 * look.leaseMs) / STUCK_MS)
  // Only an answer that comes after the time is up: an older one says nothing of a Redis that went away since.
  const isStuck = idleMs >= STUCK_MS * factor && (before.stuck !== false || look.probe === 'answered')
  // Also as soon as nothing gets through at all: it may be that Redis is away, which must not count.
  const patienceMs = reached ? PROBE_AFTER_MS * factor : READY_MS
  const isSuspect = idleMs >= patienceMs || isAway
  return {
    ...{ signs, silentMs, idleMs, unreachedMs, isAway, reached },
    stalled: silentMs > look.stallMs,
    stuck: isStuck && (hasRoom ? 'reads' : 'renewals'),
    wantsProbe: state === 'running' && silentMs <= STANDSTILL_MS && isSuspect,
  }
}

/** What a worker in this state answers. */
export function healthOf(state: WorkerHealth['state'], { stalled, stuck, reached }: Condition): WorkerHealth {
  if (state === 'new' || state === 'stopped') return { live: true, ready: false, state, reasons: [notRunning(state)] }
  const reasons: string[] = []
  if (stalled) reasons.push('the event loop has not turned for stallMs')
  if (stuck === 'reads') reasons.push('Redis answers, but no read of this worker completed for 30 s')
  if (stuck === 'renewals')
    reasons.push('Redis answers, but this worker neither has room to read nor renews its leases')
  const live = reasons.length === 0
  if (!reached) reasons.push('no round trip to Redis completed for 5 s')
  if (state !== 'running') reasons.push(notRunning(state))
  return { live, ready: reasons.length === 0, state, reasons }
}

function notRunning(state: WorkerHealth['state']): string {
  return state === 'new' ? 'the worker was not started' : `the worker is ${state}`
}
