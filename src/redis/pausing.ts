import type { Redis } from 'ioredis'
import { OptionError, UnknownGroupError } from '../errors.ts'
import { didYouMean } from '../options.ts'
import { look } from './inspection.ts'
import { settingsKey } from './keys.ts'
import { memberKeys, type Member } from './member.ts'
import { pauseInForce, pauseOf, type Pause } from './pause.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { endPause, readPauses, writePause } from './scripts/pause.ts'
import { run } from './scripts/script.ts'
import { groupFields } from './settings.ts'

/** Pausing and resuming: fields of a stream's settings, which every worker follows. `group` null is the whole stream. */

export interface PauseWanted {
  readonly group: string | null
  readonly forMs: number | undefined
  readonly untilMs: number | undefined
  readonly by: string
  readonly reason: string
}

/** @throws UnknownGroupError; OptionError if it would be over already. Nothing was written then. */
export async function pauseNow(
  client: Redis,
  stream: string,
  { group, forMs, untilMs, by, reason }: PauseWanted,
): Promise<{ paused: Pause; replaced: Pause | undefined }> {
  const texts = [JSON.stringify(by), JSON.stringify(reason)]
  const args = [fieldOf(group), group ?? '', forMs ?? '', untilMs ?? '', ...texts]
  const [how, ...told] = asArray(await run(client, writePause, [stream, settingsKey(stream)], args))
  if (how === 'unknown') {
    const groups = told.map(asText)
    throw new UnknownGroupError({ stream, group: group ?? '', groups }, didYouMean(group ?? '', groups))
  }
  const nowMs = asNumber(told[0])
  const paused = how === 'paused' ? pauseOf(told[1], nowMs) : undefined
  if (paused === undefined) {
    const now = new Date(nowMs).toISOString()
    throw new OptionError(`expected \`untilMs\` to be a time to come, and at Redis it is ${now}; nothing was changed`)
  }
  return { paused, replaced: pauseOf(told[2], nowMs) }
}

/** Ends a pause; `was` is undefined if none was in force. `still`: those of `others` that are paused all the same. */
export async function resumeNow(
  client: Redis,
  stream: string,
  { group, others }: { group: string | null; others: readonly (string | null)[] },
): Promise<{ was: Pause | undefined; still: { group: string | null; pause: Pause }[] }> {
  const args = [group, ...others].map(fieldOf)
  const [at, before, ...kept] = asArray(await run(client, endPause, [settingsKey(stream)], args))
  const nowMs = asNumber(at)
  const still = others.flatMap((other, index) => {
    const pause = pauseOf(kept[index] ?? '', nowMs)
    return pause === undefined ? [] : [{ group: other, pause }]
  })
  return { was: pauseOf(before, nowMs), still }
}

/** Whether a member's group is to begin nothing now. */
export async function readPause(client: Redis, member: Member): Promise<Pause | undefined> {
  const reply = await look(client, readPauses, [memberKeys.settings(member)], [groupFields(member.group)])
  const [nowMs, pauses] = asArray(reply)
  return pauseInForce(pauses, asNumber(nowMs))
}

function fieldOf(group: string | null): string {
  return group === null ? 'paused' : `${groupFields(group)}paused`
}
