import type { Asking } from '../asking.ts'
import { refuseUnknownKeys } from '../options.ts'
import { checkStreamName } from '../redis/keys.ts'
import type { Facts } from './facts.ts'
import { LEVELS, type DoctorFinding } from './finding.ts'
import { gatherFacts } from './gather.ts'
import { groupFindings } from './group-checks.ts'
import { permissionFindings } from './permission-checks.ts'
import { serverFindings } from './server-checks.ts'
import { listFindings, streamFindings } from './stream-checks.ts'

export interface DoctorOptions {
  /** Look at this stream, and at the server. @default the first 100 streams in use, by name */
  stream?: string
}

/** What is well and what is not, of a server and the streams on it. */
export interface Diagnosis {
  /** The worst first. */
  readonly findings: readonly DoctorFinding[]
  /** `redis` or `valkey`, with its version; null where it does not tell. */
  readonly server: { readonly software: 'redis' | 'valkey'; readonly version: string } | null
  /** Streams that were looked at. */
  readonly streams: number
  /** There are others. */
  readonly more: boolean
}

/** @throws OptionError; MillraceError ERR_NOT_FOUND for a named stream that does not exist; RedisError. */
export async function diagnose(asking: Asking, options: DoctorOptions): Promise<Diagnosis> {
  refuseUnknownKeys('doctor', options, ['stream'])
  if (options.stream !== undefined) checkStreamName(options.stream)
  const facts = await gatherFacts(asking, options.stream)
  const { server, streams, more } = facts
  const told = server.facts
  return {
    findings: findingsOf(facts),
    server: told === undefined ? null : { software: told.software, version: told.version },
    streams: streams.length,
    more,
  }
}

/** Pure. The worst first; of the same level the server before streams, and streams before groups. */
export function findingsOf(facts: Facts): DoctorFinding[] {
  const found = [
    ...serverFindings(facts),
    ...permissionFindings(facts),
    ...listFindings(facts),
    ...facts.streams.flatMap((seen) => [
      ...streamFindings(seen, facts),
      ...(seen.kind === 'stream' ? seen.groups.flatMap((group) => groupFindings(seen, group, facts)) : []),
    ]),
  ]
  return found.sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level))
}
