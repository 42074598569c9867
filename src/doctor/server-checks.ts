import type { ServerFacts } from '../redis/server-info.ts'
import { unsafeChecks } from '../server-safety.ts'
import type { Facts } from './facts.ts'
import { bytesText, fine, problem, spanText, type DoctorCheck, type DoctorFinding } from './finding.ts'
import { versionFindings } from './version.ts'

/** What is found of the server as a whole. Pure. */

/** A clock that is off by less is no clock that anything of ours goes by. */
const SKEW_MS = 1000
const MEMORY_RATIO = 0.8

export function serverFindings({ server }: Pick<Facts, 'server'>): DoctorFinding[] {
  const { facts } = server
  if (facts === undefined) return [...INFO_CHECKS.map(forbidden), ...clockFindings(server)]
  return [
    ...versionFindings(facts),
    ...modeFindings(facts),
    ...evictionFindings(facts),
    ...memoryFindings(facts),
    ...persistenceFindings(facts),
    ...writeErrorFindings(facts),
    ...replicaFindings(facts, server.minReplicas),
    ...clockFindings(server),
  ]
}

const INFO_CHECKS: readonly DoctorCheck[] = [
  ...(['version', 'mode', 'eviction', 'memory', 'persistence', 'write-errors', 'replicas'] as const),
]

function forbidden(check: DoctorCheck): DoctorFinding {
  return problem([check, 'unknown'], {
    found: 'this user may not ask for INFO',
    why: 'What the server does with jobs cannot be seen from here.',
    fix: 'run it as a user with +info, or look at the settings of the server by other means',
  })
}

function modeFindings({ mode, role }: ServerFacts): DoctorFinding[] {
  if (mode === 'sentinel') {
    return [
      problem(['mode', 'fail'], {
        found: 'this is a Sentinel, not a Redis',
        why: 'A Sentinel keeps no jobs.',
        fix: 'give the URL of the master, or ioredis options with `sentinels` and `name`',
      }),
    ]
  }
  if (role === 'slave' || role === 'replica') {
    return [
      problem(['mode', 'fail'], {
        found: 'this is a replica',
        why: 'It takes no writes, so that nothing can be published or settled here.',
        fix: 'give the URL of the master, or ioredis options with `sentinels` and `name`',
      }),
    ]
  }
  if (mode !== 'cluster') return [fine('mode', `${mode}, ${role}`)]
  return [
    problem(['mode', 'warn'], {
      found: 'this is a node of a cluster',
      why: 'Each connection speaks to one node, and streams in the slots of other nodes are refused with MOVED.',
      fix: 'use a Redis without cluster mode, or a proxy that speaks for the whole cluster',
    }),
  ]
}

function evictionFindings(facts: ServerFacts): DoctorFinding[] {
  const { evictionPolicy = '', maxMemoryBytes } = facts
  const isUnsafe = unsafeChecks(facts).eviction
  if (isUnsafe === undefined) return [unsaid('eviction', 'maxmemory-policy')]
  if (!isUnsafe) return [fine('eviction', 'maxmemory-policy noeviction')]
  const isBounded = maxMemoryBytes > 0
  return [
    problem(['eviction', isBounded ? 'fail' : 'warn'], {
      found: `maxmemory-policy ${evictionPolicy}${isBounded ? '' : ', though maxmemory is not set'}`,
      why: isBounded
        ? 'When memory is full Redis deletes keys, whole streams of jobs among them.'
        : 'As soon as somebody sets maxmemory, Redis may delete whole streams of jobs.',
      fix: 'CONFIG SET maxmemory-policy noeviction, and the same in redis.conf',
    }),
  ]
}

function memoryFindings({ usedMemoryBytes, maxMemoryBytes, evictionPolicy }: ServerFacts): DoctorFinding[] {
  if (maxMemoryBytes === 0) {
    return [
      problem(['memory', 'note'], {
        found: `${bytesText(usedMemoryBytes)} used, maxmemory is not set`,
        why: 'A Redis without a bound is killed by its machine when memory runs out, where one with a bound refuses publishes.',
        fix: 'CONFIG SET maxmemory to some 60 % of the memory of the machine: snapshots need the rest',
      }),
    ]
  }
  const part = usedMemoryBytes / maxMemoryBytes
  const found = `${bytesText(usedMemoryBytes)} of ${bytesText(maxMemoryBytes)} used (${Math.round(part * 100)} %)`
  if (part < MEMORY_RATIO) return [fine('memory', found)]
  return [
    problem(['memory', part >= 1 ? 'fail' : 'warn'], {
      found,
      why:
        evictionPolicy === 'noeviction'
          ? 'Producers hold their publishes at this share (maxMemoryShare); when memory is full Redis refuses retries too.'
          : 'When memory is full Redis refuses publishes and retries.',
      fix: 'raise maxmemory, or keep less: millrace trim <stream> tells what retention keeps and why',
    }),
  ]
}

function persistenceFindings(facts: ServerFacts): DoctorFinding[] {
  const { isAofOn, fsync, savePoints } = facts
  if (isAofOn) return [aofFinding(fsync)]
  const isNone = unsafeChecks(facts).no_persistence
  const fix = 'CONFIG SET appendonly yes, and the same in redis.conf'
  if (isNone === undefined) {
    return [
      problem(['persistence', 'warn'], {
        found: 'the append-only file is off; whether there are snapshots is not told',
        why: 'A crash loses at least what was published and settled since the last snapshot.',
        fix: 'turn the append-only file on where the service is configured',
      }),
    ]
  }
  if (isNone) {
    return [
      problem(['persistence', 'fail'], {
        found: 'nothing is written to disk: no append-only file, no snapshots',
        why: 'A restart of Redis loses every job.',
        fix,
      }),
    ]
  }
  return [
    problem(['persistence', 'warn'], {
      found: `snapshots only (save ${savePoints ?? ''}), no append-only file`,
      why: 'A crash loses what was published since the last snapshot, and runs again what was settled since.',
      fix,
    }),
  ]
}

function aofFinding(fsync: string | undefined): DoctorFinding {
  const found = `append-only file, appendfsync ${fsync ?? 'not told'}`
  if (fsync !== 'no')
    return fine('persistence', `${found}${fsync === 'everysec' ? ': a crash loses up to 1 s or 2' : ''}`)
  return problem(['persistence', 'warn'], {
    found,
    why: 'A crash of the machine loses what the operating system had not written yet, 30 s or so.',
    fix: 'CONFIG SET appendfsync everysec, and the same in redis.conf',
  })
}

function writeErrorFindings(facts: ServerFacts): DoctorFinding[] {
  const { aof_error: aof, bgsave_error: snapshot } = unsafeChecks(facts)
  const fix =
    'free its disk or repair the permissions of its directory; redis-cli INFO persistence says when it works again'
  const found = [
    ...(aof === true
      ? [
          problem(['write-errors', 'fail'], {
            found: 'the last write or rewrite of the append-only file failed',
            why: 'What is published may not survive a restart, and Redis may refuse all writes.',
            fix,
          }),
        ]
      : []),
    ...(snapshot === true
      ? [
          problem(['write-errors', 'fail'], {
            found: 'the last snapshot failed',
            why: 'Redis refuses all writes while snapshots fail (MISCONF), unless stop-writes-on-bgsave-error is off.',
            fix,
          }),
        ]
      : []),
  ]
  return found.length > 0 ? found : [fine('write-errors', 'no write to disk has failed')]
}

function replicaFindings({ replicas }: ServerFacts, minReplicas: number | undefined): DoctorFinding[] {
  if (replicas === undefined) return [unsaid('replicas', 'the number of replicas')]
  if (replicas === 0) {
    return [
      problem(['replicas', 'note'], {
        found: 'no replica is connected',
        why: 'If this machine is lost, so are its jobs, and nobody works until it is back.',
        fix: 'add a replica, with Sentinel or a managed service that fails over to it',
      }),
    ]
  }
  const found = `${replicas} connected, min-replicas-to-write ${minReplicas ?? 'not told'}`
  if (minReplicas === undefined || minReplicas > 0) return [fine('replicas', found)]
  return [
    problem(['replicas', 'note'], {
      found,
      why: 'A master that is cut off from its replicas goes on taking jobs, which a failover then loses.',
      fix: 'CONFIG SET min-replicas-to-write 1, if refused publishes are better than lost ones',
    }),
  ]
}

function clockFindings({ clock }: Facts['server']): DoctorFinding[] {
  if (clock === undefined) return [unsaid('clock', 'its time')]
  const { aheadMs, withinMs } = clock
  if (Math.abs(aheadMs) <= SKEW_MS + withinMs) return [fine('clock', 'as here, within a second')]
  const way = aheadMs > 0 ? 'ahead of' : 'behind'
  return [
    problem(['clock', 'warn'], {
      found: `the clock of the server is ${spanText(Math.abs(aheadMs))} ${way} this machine's`,
      why: 'Ids and times of jobs are the server’s: a publish for a moment, and ages reckoned here, are off by as much.',
      fix: 'run chrony or another NTP client on both machines',
    }),
  ]
}

function unsaid(check: DoctorCheck, what: string): DoctorFinding {
  return problem([check, 'unknown'], {
    found: `the server does not tell ${what}`,
    why: 'Whether it is as it should be cannot be seen from here.',
    fix: 'look where the service is configured',
  })
}
