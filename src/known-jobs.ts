import { monotonicMs } from './clock.ts'
import { PRESENT_MS } from './group-reading.ts'
import type { Handler } from './job.ts'
import type { Connection } from './redis/connection.ts'
import { faultOf } from './redis/faults.ts'
import type { Member } from './redis/member.ts'
import { readAlive, toldBy } from './redis/present.ts'

/**
 * Which jobs the workers of a group know. Each tells it with its pulse, so that one that has no handler for a job does not take
 * it for a job that nobody knows, however seldom those that do come by it: they may be few among old ones, or busy.
 */

/** By name, the newest version that is known of it. */
export type Known = ReadonlyMap<string, number>

/** Characters of what a worker tells, once a pulse. One that knows more tells none of them. */
const MOST_CHARACTERS = 2000
/** Workers that are asked. */
const MOST_ASKED = 200
/** How long an answer is good for, in ms: those that die do so in crowds. */
const GOOD_FOR_MS = 1000

/** Names, with the version of those that have had more than one: `mail sign@3`. */
export function knownText(handlers: ReadonlyMap<string, Handler>): string {
  const told = [...handlers].map(
    ([
      name,
      {
        job: { version = 1 },
      },
    ]) => (version === 1 ? name : `${name}@${version}`),
  )
  const text = told.join(' ')
  return text.length > MOST_CHARACTERS ? '' : text
}

/** What is known to workers that say so of themselves, but for one. Pure. */
export function knownBy(workers: ReadonlyMap<string, string>, but: string): Known {
  const known = new Map<string, number>()
  for (const [worker, about] of workers) {
    const { jobs } = toldBy(about)
    if (worker === but || typeof jobs !== 'string') continue
    for (const told of jobs.split(' ')) {
      const [name = '', version = '1'] = told.split('@')
      known.set(name, Math.max(known.get(name) ?? 0, Number(version) || 0))
    }
  }
  return known
}

/** Asks what the other workers of the group know; only a job that would die of it has anybody ask. */
export class KnownJobs {
  readonly #connection: Connection
  readonly #member: Member
  #answer: { readonly known: Promise<Known | undefined>; readonly untilMs: number } | undefined

  constructor(connection: Connection, member: Member) {
    this.#connection = connection
    this.#member = member
  }

  /** Undefined where it cannot be told now. Never rejects. */
  elsewhere(): Promise<Known | undefined> {
    if (this.#answer === undefined || monotonicMs() >= this.#answer.untilMs) {
      this.#answer = { known: this.#ask(), untilMs: monotonicMs() + GOOD_FOR_MS }
    }
    return this.#answer.known
  }

  async #ask(): Promise<Known | undefined> {
    try {
      const alive = await readAlive(this.#connection.client, this.#member, { presentMs: PRESENT_MS, most: MOST_ASKED })
      return knownBy(alive, this.#member.consumer)
    } catch (error) {
      // Redis that does not let it be read never will: then it is as if nobody knew any.
      return faultOf(error).kind === 'fatal' ? new Map() : undefined
    }
  }
}
