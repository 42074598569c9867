import { gather, type AuditScope, type Gathering, type Watching } from './gather.ts'
import { isSame, missingLetters, missingOf, type MinuteSums } from './minutes.ts'
import { firstWholeMinute, MOST_AHEAD } from './range.ts'
import { MINUTE_MS } from '../redis/auditing.ts'
import { readHistoryOf } from '../redis/reading.ts'
import { TALLY_TTL_MS } from '../redis/tally.ts'
import type { AuditMinute } from './minutes.ts'
import type { Ask } from '../scan.ts'

/** What was found of a minute. */
export interface Judged {
  readonly sums: MinuteSums
  readonly state: AuditMinute['state']
}

/** How often what does not add up is gathered again, and what is waited before each time. */
export interface Patience {
  readonly tries: number
  readonly wait: (tried: number) => Promise<void>
}

/**
 * Adds up all minutes. Jobs move while they are counted, so that one that does not add up is gathered again: only what two
 * gatherings in a row saw alike, count by count, stands still and is missing. What goes on changing is `moving`.
 */
export async function judge(
  ask: Ask,
  scope: AuditScope,
  { watching, patience }: { watching: Watching; patience: Patience },
): Promise<{ minutes: Map<number, Judged>; gathered: Gathering }> {
  const gathered = await gather(ask, scope, watching)
  const minutes = new Map<number, Judged>()
  for (const minute of gathered.sums.minutes) {
    const sums = gathered.sums.of(minute)
    minutes.set(minute, { sums, state: addsUp(sums) ? 'ok' : 'moving' })
  }
  // What stands still with a surplus may have entries anywhere: it is one only if the whole stream has not enough.
  let reach: 'copies' | 'all' = 'copies'
  for (let tried = 0; tried < patience.tries; tried++) {
    const open = [...minutes].filter(([, { state }]) => state === 'moving').map(([minute]) => minute)
    const [low, high] = [open[0], open.at(-1)]
    if (low === undefined || high === undefined) break
    await patience.wait(tried)
    const again = await gather(ask, { ...scope, low, high, isOpen: false, reach }, watching)
    let hasSurplus = false
    for (const minute of open) {
      const [sums, before] = [again.sums.of(minute), minutes.get(minute)?.sums]
      const state = stateOf(sums, before, { minute, nowMs: scope.nowMs })
      const isDoubtful = state === 'fault' && missingOf(sums) < 0 && reach !== 'all'
      hasSurplus ||= isDoubtful
      minutes.set(minute, { sums, state: isDoubtful ? 'moving' : state })
    }
    if (hasSurplus) reach = 'all'
  }
  if ([...minutes.values()].some(({ state }) => state === 'fault')) await forgetTrimmed(ask, scope, minutes)
  return { minutes, gathered }
}

/** Retention may have taken entries of the first minutes while these were added up. */
async function forgetTrimmed(ask: Ask, { stream }: AuditScope, minutes: Map<number, Judged>): Promise<void> {
  const history = await ask((client) => readHistoryOf(client, stream))
  const oldest = 'type' in history ? undefined : firstWholeMinute(history)
  for (const [minute, { sums, state }] of minutes) {
    if (state === 'fault' && oldest !== undefined && minute < oldest) minutes.set(minute, { sums, state: 'unknown' })
  }
}

function addsUp(sums: MinuteSums): boolean {
  return missingOf(sums) === 0 && missingLetters(sums) === 0
}

function stateOf(
  sums: MinuteSums,
  before: MinuteSums | undefined,
  { minute, nowMs }: { minute: number; nowMs: number },
): AuditMinute['state'] {
  if (addsUp(sums)) return 'ok'
  if (before === undefined || !isSame(sums, before)) return 'moving'
  // The tally of an hour may have been begun as early as the hour itself, or before it where ids were ahead of the clock, and
  // has ended a week later.
  const hourMs = (minute - (minute % 60) - MOST_AHEAD) * MINUTE_MS
  return hourMs + TALLY_TTL_MS < nowMs ? 'unknown' : 'fault'
}
