import { askAgain } from '../ask-again.ts'
import type { Asking } from '../asking.ts'
import { existingStream } from '../existing.ts'
import { MillraceError, OptionError } from '../errors.ts'
import { refuseUnknownKeys, shown } from '../options.ts'
import { PartlyDoneError } from '../partly-done.ts'
import { faultOf } from '../redis/faults.ts'
import type { Client } from '../redis/connection.ts'
import { checkStreamName } from '../redis/keys.ts'
import { listReplays, readReplay, release, targetsOf, turn, type ReplayPlace } from '../redis/replays.ts'
import { checkAsked, MOST_PER_SECOND, optionalNumber, type ReplayOptions } from './asked.ts'
import { planReplay, type ReplayPlan } from './plan.ts'
import { noReplay, ReplayRunner, type RunOptions } from './runner.ts'
import { takeUp } from './start.ts'
import { isOver, replayOfFields, type Replay } from './state.ts'
import type { Ask } from '../scan.ts'

export interface ResumeOptions extends Pick<ReplayOptions, 'signal' | 'onProgress'> {
  /** How many jobs a second at most, from now on. @default as before */
  readonly perSecond?: number
}

/** A replay when its run ended: done, or paused by the signal or by somebody else, or cancelled. */
export interface ReplayResult extends Replay {
  readonly executed: true
  /** Ids of jobs that the stream does not hold. */
  readonly unknownIds: readonly string[]
}

/** Replays that are listed. */
const MOST_LISTED = 1000
/** Of which the state is asked for together. */
const AT_ONCE = 100

/**
 * Replays: jobs out of the history of a stream, once more for one of its groups or into another stream. Each match is copied
 * exactly once, oldest first, whatever dies when and however many resume it. A replay is kept at the stream that it brings
 * jobs into; as long as it is not over, retention keeps what it has not read (a day at most from when it was last run).
 *
 * All methods throw OptionError on a wrong name or option, MillraceError ERR_NOT_FOUND for a stream or replay that there is
 * not, UnknownGroupError for a group, and RedisError if Redis cannot be reached or refuses.
 */
export class Replays {
  readonly #asking: Asking

  constructor(asking: Asking) {
    this.#asking = asking
  }

  /**
   * What a replay would be of. Nothing is changed.
   * @throws MillraceError ERR_HISTORY if the range begins before the history does; WhereError for what is no condition.
   */
  async plan(stream: string, options: ReplayOptions): Promise<ReplayPlan> {
    const asked = checkAsked('replays.plan', stream, options)
    return planReplay(this.#asks(`the history of ${stream}`, asked.signal), asked)
  }

  /**
   * Takes a replay up and runs it to its end. Its range ends with the newest entry that is there now. The signal pauses it.
   * @throws as `plan`; MillraceError ERR_REPLAY if 100 replays hold the stream; PartlyDoneError if Redis is gone for half a
   * minute, or refuses, after it was taken up: `done` is the replay as it was last seen, and `resume` goes on with it.
   */
  async start(stream: string, options: ReplayOptions): Promise<ReplayResult> {
    const asked = checkAsked('replays.start', stream, options)
    const { place, unknownIds } = await takeUp(this.#asks(`a replay of ${stream}`, asked.signal), asked)
    const { signal, onProgress } = asked
    onProgress?.({ id: place.id, copied: 0, scanned: 0, fraction: 0 })
    return { ...(await this.#run(place, { signal, onProgress })), executed: true, unknownIds }
  }

  /**
   * Goes on with a replay that is paused, or whose process died, to its end. Two that do so at once share the work.
   * @param stream into which, or into a group of which, it brings jobs.
   * @throws MillraceError ERR_REPLAY if it was cancelled; ERR_HISTORY if entries that it had not read are gone; as `start`.
   */
  async resume(stream: string, id: string, options: ResumeOptions = {}): Promise<ReplayResult> {
    refuseUnknownKeys('replays.resume', options, ['perSecond', 'signal', 'onProgress'])
    const perSecond = optionalNumber('perSecond', options.perSecond, MOST_PER_SECOND)
    const { signal, onProgress } = options
    const place = await this.#find(stream, id)
    const status = await this.#asks(
      textOf(place),
      signal,
    )((client) => turn(client, place, { wanted: 'running', perSecond }))
    if (status === 'cancelled') {
      throw new MillraceError('ERR_REPLAY', `replay ${id} into ${stream} was cancelled: begin another one`)
    }
    return { ...(await this.#run(place, { signal, onProgress })), executed: true, unknownIds: [] }
  }

  /** The replays into a stream or its groups, the newest first: at most 1000. */
  async list(stream: string): Promise<Replay[]> {
    checkStreamName(stream)
    const ask = this.#asks(`the replays into ${stream}`)
    await ask((client) => existingStream(client, stream))
    const ids = await ask((client) => listReplays(client, stream, MOST_LISTED))
    const found: (Replay | undefined)[] = []
    for (let from = 0; from < ids.length; from += AT_ONCE) {
      const some = ids.slice(from, from + AT_ONCE)
      found.push(...(await Promise.all(some.map((id) => ask((client) => stateOf(client, { stream, id }))))))
    }
    return found.filter((replay) => replay !== undefined)
  }

  /** One replay into a stream or one of its groups. */
  async show(stream: string, id: string): Promise<Replay> {
    const place = await this.#find(stream, id)
    const replay = await this.#asks(textOf(place))((client) => stateOf(client, place))
    if (replay === undefined) throw noReplay(place)
    return replay
  }

  /**
   * Ends a replay for good: whoever runs it stops before its next step, and retention is let go on. What was copied stays. One
   * that is over already stays as it is.
   */
  async cancel(stream: string, id: string): Promise<Replay> {
    const place = await this.#find(stream, id)
    const ask = this.#asks(textOf(place))
    await ask((client) => turn(client, place, { wanted: 'cancelled' }))
    const replay = await this.show(stream, id)
    if (isOver(replay)) await ask((client) => release(client, replay.source, place))
    return replay
  }

  #asks(what: string, signal?: AbortSignal): Ask {
    return (question) => askAgain(this.#asking, { what, signal }, question)
  }

  /** @throws MillraceError ERR_NOT_FOUND, which names the stream where the replay is if it reads this one. */
  async #find(stream: string, id: string): Promise<ReplayPlace> {
    const place = { stream: checkStreamName(stream), id: checkReplayId(id) }
    const ask = this.#asks(textOf(place))
    if ((await ask((client) => readReplay(client, place))) !== undefined) return place
    await ask((client) => existingStream(client, stream))
    const [target] = await ask((client) => targetsOf(client, stream, id))
    const { code, message } = noReplay(place)
    throw new MillraceError(
      code,
      target === undefined ? message : `${message}; it reads ${stream} and goes into ${target}: ask there`,
    )
  }

  async #run(place: ReplayPlace, options: RunOptions): Promise<Replay> {
    const runner = new ReplayRunner(this.#asking, place, options)
    try {
      return await runner.run()
    } catch (error) {
      throw await this.#stopped(error, place, runner)
    }
  }

  /** A Redis that is away leaves the replay as it is; what does not pass by itself has it paused. */
  async #stopped(error: unknown, place: ReplayPlace, runner: ReplayRunner): Promise<unknown> {
    if (!(error instanceof MillraceError) || error.code === 'ERR_NOT_FOUND') return error
    const isAway = error.code === 'ERR_REDIS_UNREACHABLE'
    const isPaused = !isAway && (await runner.pause().then(isTrue, isFalse))
    if (!error.code.startsWith('ERR_REDIS')) return error
    const done = runner.replay ?? { ...place, copied: 0 }
    const state = isPaused ? 'it is paused' : 'it stands where it was'
    const why = isOutOfMemory(error) ? 'Redis is out of memory: give it more, or have some freed; ' : ''
    const text = `${error.message}; ${why}replay ${place.id} has copied ${done.copied} jobs into ${place.stream}, ${state}: resume it`
    return new PartlyDoneError(text, { code: error.code, done, cause: error })
  }
}

async function stateOf(client: Client, { stream, id }: ReplayPlace): Promise<Replay | undefined> {
  const fields = await readReplay(client, { stream, id })
  return fields === undefined ? undefined : replayOfFields(id, stream, fields)
}

function checkReplayId(id: unknown): string {
  if (typeof id === 'string' && /^r[a-z2-7]{8}$/.test(id)) return id
  throw new OptionError(`expected the id of a replay, such as rk3m7q2ab, got ${shown(id)}`)
}

function textOf({ stream, id }: ReplayPlace): string {
  return `replay ${id} into ${stream}`
}

function isOutOfMemory(error: Error): boolean {
  return faultOf(error.cause).word === 'OOM'
}

const isTrue = () => true
const isFalse = () => false
