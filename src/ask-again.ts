import type { Asking } from './asking.ts'
import { backoffMs, sleep } from './clock.ts'
import { MillraceError } from './errors.ts'
import type { Client } from './redis/connection.ts'
import { faultOf } from './redis/faults.ts'

const TRIES = 5

/**
 * Asks again where Redis was away or would not answer now, for what takes long and may be sent twice. Only that: a Redis
 * that stays away for some half a minute is an error. So is one that is out of memory, which does not pass by itself.
 */
export async function askAgain<Told>(
  asking: Asking,
  { what, signal }: { what: string; signal: AbortSignal | undefined },
  ask: (client: Client) => Promise<Told>,
): Promise<Told> {
  for (let tries = 0; ; tries++) {
    try {
      return await asking.run(what, ask)
    } catch (error) {
      if (tries + 1 >= TRIES || signal?.aborted === true || !isPassing(error)) throw error
      await sleep(backoffMs(tries, 100, 2000), signal)
    }
  }
}

function isPassing(error: unknown): boolean {
  if (!(error instanceof MillraceError)) return false
  if (error.code === 'ERR_REDIS_UNREACHABLE') return true
  const { kind, word } = faultOf(error.cause)
  return error.code === 'ERR_REDIS_REFUSED' && kind === 'refused' && word !== 'OOM'
}
