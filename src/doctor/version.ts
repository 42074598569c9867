import type { ServerFacts } from '../redis/server-info.ts'
import { fine, problem, type DoctorFinding, type FindingLevel } from './finding.ts'

/** Versions of servers and what is known of their streams. Pure. */

interface Flaw {
  readonly software: ServerFacts['software']
  /** From this version on. */
  readonly since: string
  /** Repaired in these, each of its own line; a line that is not named has it if it is older than the last one. */
  readonly fixedIn: readonly string[]
  readonly level: 'note' | 'warn'
  readonly found: string
  readonly why: string
}

/** Only what our commands meet: features that are not used bring no warning. */
const FLAWS: readonly Flaw[] = [
  {
    software: 'redis',
    since: '7.2.0',
    fixedIn: ['7.2.5'],
    level: 'note',
    found: 'the time of a blocking read begins anew each time that the reader is woken (before 7.2.5)',
    why: 'A worker may then take a read for lost and connect anew.',
  },
  {
    software: 'redis',
    since: '7.0.0',
    fixedIn: ['7.4.4'],
    level: 'note',
    found: 'the lag of a group can be wrong or unknown after entries were deleted or trimmed (before 7.4.4)',
    why: 'Lag in jobs is then told as unknown; lag in seconds is always right.',
  },
  {
    software: 'valkey',
    since: '7.2.0',
    fixedIn: ['9.0.0'],
    level: 'note',
    found: 'the lag of a group can be wrong or unknown after entries were deleted or trimmed (before 9.0)',
    why: 'Lag in jobs is then told as unknown; lag in seconds is always right.',
  },
  {
    software: 'redis',
    since: '7.2.0',
    fixedIn: ['7.4.9', '8.2.6', '8.4.3', '8.6.3', '8.8.0'],
    level: 'warn',
    found: 'memory is used after it was freed when a blocked client is woken (CVE-2026-23479)',
    why: 'Workers block in reads all the time; with client eviction on, whoever may log in could run code on the server.',
  },
  {
    software: 'redis',
    since: '7.4.0',
    fixedIn: ['7.4.11', '8.2.9', '8.4.6', '8.6.6', '8.8.2'],
    level: 'note',
    found: 'XREADGROUP can read keys that the ACL of its user forbids',
    why: 'Users that are limited to some streams are not limited by this server.',
  },
]

const FLOOR = { redis: '6.2.0', valkey: '7.2.0' } as const

export function versionFindings({ software, version }: ServerFacts): DoctorFinding[] {
  const name = `${software === 'valkey' ? 'Valkey' : 'Redis'} ${version}`
  if (!/^\d+\.\d+/.test(version)) {
    return [
      problem(['version', 'unknown'], {
        found: `${name}, which is no version that is known`,
        why: 'What it can do is not known.',
        fix: 'use Redis 7.0 or newer, or Valkey 7.2 or newer',
      }),
    ]
  }
  if (isBefore(version, FLOOR[software])) {
    return [
      problem(['version', 'fail'], {
        found: name,
        why: 'It lacks commands that workers need, XAUTOCLAIM among them.',
        fix: `upgrade: Redis 6.2 is the oldest that works, 7.0 the oldest that tells lag in jobs`,
      }),
    ]
  }
  const flaws = FLAWS.filter((flaw) => flaw.software === software && hasFlaw(version, flaw)).map((flaw) =>
    problem(['version', flaw.level], {
      found: `${name}: ${flaw.found}`,
      why: flaw.why,
      fix: `upgrade to ${fixOf(version, flaw.fixedIn)} or newer`,
    }),
  )
  const old =
    software === 'redis' && isBefore(version, '7.0.0')
      ? [
          problem(['version', 'note'], {
            found: `${name} does not tell lag in jobs`,
            why: 'Lag is told in seconds only, and reading scripts need permission to write.',
            fix: 'upgrade to Redis 7.2 or newer',
          }),
        ]
      : []
  const found = [...flaws, ...old]
  return worst(found) === 'warn' ? found : [fine('version', name), ...found]
}

function worst(findings: readonly DoctorFinding[]): FindingLevel {
  return findings.some(({ level }) => level === 'warn') ? 'warn' : 'note'
}

/** A line of its own is a major and minor number: 7.4, 8.2. */
export function hasFlaw(version: string, { since, fixedIn }: Pick<Flaw, 'since' | 'fixedIn'>): boolean {
  if (isBefore(version, since)) return false
  const own = fixedIn.find((fixed) => lineOf(fixed) === lineOf(version))
  if (own !== undefined) return isBefore(version, own)
  return isBefore(version, fixedIn.at(-1) ?? since)
}

/** In the own line if it was repaired there, else in the next that was. */
function fixOf(version: string, fixedIn: readonly string[]): string {
  return fixedIn.find((fixed) => isBefore(version, fixed)) ?? ''
}

function isBefore(version: string, other: string): boolean {
  const [a, b] = [numbersOf(version), numbersOf(other)]
  const at = [0, 1, 2].find((place) => (a[place] ?? 0) !== (b[place] ?? 0))
  return at !== undefined && (a[at] ?? 0) < (b[at] ?? 0)
}

function numbersOf(version: string): number[] {
  return version.split('.').map((part) => Number.parseInt(part, 10) || 0)
}

function lineOf(version: string): string {
  return version.split('.').slice(0, 2).join('.')
}
