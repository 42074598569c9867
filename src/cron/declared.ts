import { OptionError } from '../errors.ts'
import { shown } from '../options.ts'
import type { Client } from '../redis/connection.ts'
import { writeCron } from '../redis/cron.ts'
import { checkStreamName } from '../redis/keys.ts'
import { checkSchedule, digestOf, type CheckedSchedule, type CronSchedule } from './schedule.ts'
import { writtenOf } from './written.ts'

/** A schedule that a worker declares. */
export interface DeclaredCron extends CronSchedule {
  /** The stream that it belongs to, one of the worker's. @default its job's; for a job without one the only one of the worker */
  stream?: string
}

export interface ResolvedCron {
  readonly stream: string
  readonly schedule: CheckedSchedule
}

const MOST_DECLARED = 1000

/** @throws OptionError before anything is opened. */
export function resolveCron(given: unknown, streams: readonly string[]): readonly ResolvedCron[] {
  if (given === undefined) return []
  if (!Array.isArray(given) || given.length > MOST_DECLARED) {
    throw new OptionError(`expected \`cron\` to be a list of up to ${MOST_DECLARED} schedules, got ${shown(given)}`)
  }
  const resolved = (given as unknown[]).map((one, at) => resolveOne(`cron[${at}]`, one, streams))
  const names = new Set<string>()
  for (const { stream, schedule } of resolved) {
    const name = `${stream} ${schedule.name}`
    if (names.has(name)) throw new OptionError(`expected each schedule of \`cron\` once, got ${schedule.name} twice`)
    names.add(name)
  }
  return resolved
}

/**
 * Writes what code declares, as far as it is not what it has declared last: what was changed or removed by hand since stays
 * as it was made, until the declaration says something else. `isAgain`: only what was lost.
 */
export async function declareCron(
  client: Client,
  declared: readonly ResolvedCron[],
  { nowMs, most, isAgain = false }: { nowMs: number; most: number; isAgain?: boolean },
): Promise<readonly { readonly name: string; readonly outcome: string }[]> {
  return Promise.all(
    declared.map(async ({ stream, schedule }) => {
      const written = { ...writtenOf(schedule, nowMs), declared: digestOf(schedule), isAgain }
      const set = await writeCron(client, stream, written, most)
      return { name: schedule.name, outcome: typeof set === 'string' ? set : set.outcome }
    }),
  )
}

function resolveOne(where: string, given: unknown, streams: readonly string[]): ResolvedCron {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new OptionError(`expected \`${where}\` to be a schedule with a name, a job and a time, got ${shown(given)}`)
  }
  const { stream: named, ...schedule } = given as DeclaredCron
  return { stream: streamOf(where, { named, job: schedule.job }, streams), schedule: checkedAt(where, schedule) }
}

/** @throws what checkSchedule does, with the place of the schedule in its list. */
function checkedAt(where: string, schedule: CronSchedule): CheckedSchedule {
  try {
    return checkSchedule(where, schedule)
  } catch (error) {
    if (!(error instanceof OptionError) || error.message.includes(where)) throw error
    throw new OptionError(`${where}: ${error.message}`, error.code, { cause: error.cause })
  }
}

/**
 * The stream of its job goes before the only one of the worker: where several workers have the same declarations, each with a stream
 * of its own, each of them would fire the schedule.
 */
function streamOf(
  where: string,
  { named, job }: { readonly named: unknown; readonly job: DeclaredCron['job'] },
  streams: readonly string[],
): string {
  const ofJob = typeof job === 'object' && job !== null ? job.stream : undefined
  const [only, ...others] = streams
  const stream = named === undefined ? (ofJob ?? (others.length === 0 ? only : undefined)) : named
  if (stream !== undefined && streams.includes(checkStreamName(stream))) return stream as string
  const got = stream === undefined ? 'none' : shown(stream)
  const whose = named === undefined && ofJob !== undefined ? ", which is its job's: name the one that is meant" : ''
  throw new OptionError(
    `expected \`${where}.stream\` to be one of the worker's streams (${streams.join(', ')}), got ${got}${whose}`,
  )
}
