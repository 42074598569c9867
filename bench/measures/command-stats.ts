import type { Redis } from 'ioredis'

/** What commands cost Redis since its statistics were reset. */
export interface CommandStats {
  /** Time in all of them that a client has sent, in µs: what a script calls is part of its script. */
  readonly usec: number
  /** How many of them clients have sent. */
  readonly sent: number
  readonly commands: readonly { readonly name: string; readonly calls: number; readonly usecPerCall: number }[]
  callsOf(names: readonly string[]): number
}

/** Commands of ours that measure, and what a connection begins with. */
const OWN = /^(info|config|hello|client|select|ping|command|auth)/
const SCRIPTS = /^eval/

/** Commands that only scripts call here are within the time of the scripts. */
export async function commandStats(redis: Redis): Promise<CommandStats> {
  const text = await redis.info('commandstats')
  const pattern = /^cmdstat_([^:]+):calls=(\d+),usec=(\d+),usec_per_call=([\d.]+)/gm
  const commands = [...text.matchAll(pattern)].map(([, name = '', calls, usec, usecPerCall]) => {
    return { name, calls: Number(calls), usec: Number(usec), usecPerCall: Number(usecPerCall) }
  })
  const sent = commands.filter(({ name }) => SCRIPTS.test(name))
  return {
    usec: sent.reduce((sum, { usec }) => sum + usec, 0),
    sent: sent.reduce((sum, { calls }) => sum + calls, 0),
    commands: commands.filter(({ name }) => !OWN.test(name)),
    callsOf: (names) => commands.reduce((sum, { name, calls }) => sum + (names.includes(name) ? calls : 0), 0),
  }
}

/** The command that took longest on average. */
export function worstOf({ commands }: CommandStats): { name: string; usecPerCall: number } {
  return commands.reduce((worst, one) => (one.usecPerCall > worst.usecPerCall ? one : worst), {
    name: '',
    usecPerCall: 0,
  })
}
