import { gather, type AuditScope, type Gathering, type Watching } from './gather.ts'
import { isSame, missingOf, type MinuteSums } from './minutes.ts'
import { MINUTE_MS } from '../redis/auditing.ts'
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
    minutes.set(minute, { sums, state: missingOf(sums) === 0 ? 'ok' : 'moving' })
  }
  for (let tried = 0; tried < patience.tries; tried++) {
    const open = [...minutes].filter(([, { state }]) => state === 'moving').map(([minute]) => minute)
    const [low, high] = [open[0], open.at(-1)]
    if (low === undefined || high === undefined) break
    await patience.wait(tried)
    const again = await gather(ask, { ...scope, low, high, isOpen: false }, watching)
    for (const minute of open) {
      const sums = again.sums.of(minute)
      const before = minutes.get(minute)?.sums
      minutes.set(minute, { sums, state: stateOf(sums, before, { minute, nowMs: scope.nowMs }) })
    }
  }
  return { minutes, gathered }
}

function stateOf(
  sums: MinuteSums,
  before: MinuteSums | undefined,
  { minute, nowMs }: { minute: number; nowMs: number },
): AuditMinute['state'] {
  if (missingOf(sums) === 0) return 'ok'
  if (before === undefined || !isSame(sums, before)) return 'moving'
  // The tally of an hour may have been begun as early as the hour itself, and has ended a week later.
  const hourMs = (minute - (minute % 60)) * MINUTE_MS
  return hourMs + TALLY_TTL_MS < nowMs ? 'unknown' : 'fault'
}
