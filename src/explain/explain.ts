import { tickOf } from '../cron/tick.ts'
import { existingStream, otherType } from '../existing.ts'
import { MillraceError, OptionError, RedisError, UnknownGroupError } from '../errors.ts'
import { groupSentences } from './group-text.ts'
import { absenceOf, explainedGroups, isKnownIn, pausedOf, type Told } from './states.ts'
import { jobSentences } from './text.ts'
import type { AskedId, ExplainedGroup, ExplainedJob, Explanation } from './explanation.ts'
import { didYouMean, refuseUnknownKeys, shown } from '../options.ts'
import type { Client } from '../redis/connection.ts'
import { checkJobId, hasMadeId, timeOf } from '../redis/entry-id.ts'
import {
  readAlias,
  readGroupFacts,
  readJobFacts,
  searchDelayedEntry,
  type EntrySearch,
  type GroupFacts,
  type JobFacts,
} from '../redis/explaining.ts'
import { checkGroupName, checkStreamName } from '../redis/keys.ts'

export interface ExplainOptions {
  /** This group only. @default all groups of the stream, up to 100 */
  group?: string
  /** Whether the payload is told too, up to 1 MiB. @default false */
  payload?: boolean
}

/** More than any stream should have; beyond it a group must be named. */
const MOST_GROUPS = 100
/** Pages of at most 500 entries in which the entry of a delayed publish is looked for; fewer where other questions came first. */
const SEARCH_PAGES = 8
const SEARCH_PAGES_OF_ALIAS = 6

/** Checks what is asked before anything is opened. @throws OptionError */
export function checkExplain(stream: string, jobId: string, options: ExplainOptions): void {
  refuseUnknownKeys('explain', options, ['group', 'payload'])
  checkStreamName(stream)
  checkJobId(jobId)
  if (options.group !== undefined) checkGroupName(options.group)
  if (options.payload !== undefined && typeof options.payload !== 'boolean') {
    throw new OptionError(`expected \`payload\` to be true or false, got ${shown(options.payload)}`)
  }
}

/** Where a job is and why; see `Inspector.explain`. Fewer than 20 commands with up to 50 groups. */
export async function explainJob(
  client: Client,
  stream: string,
  jobId: string,
  options: ExplainOptions,
): Promise<Explanation> {
  const asking = new Explaining(client, stream, options)
  const first = await asking.look(jobId)
  if (first.facts.job !== undefined || first.facts.delayed !== undefined || hasMadeId(jobId)) {
    return asking.explain(first, null)
  }
  const alias = await asking.alias(first)
  return alias === undefined
    ? asking.explain(first, null)
    : asking.explain(await asking.look(alias.jobId, SEARCH_PAGES_OF_ALIAS), alias.asked)
}

interface Looked {
  readonly jobId: string
  readonly facts: JobFacts
  readonly search: EntrySearch
}

class Explaining {
  readonly #client: Client
  readonly #stream: string
  readonly #group: string | undefined
  readonly #wantsPayload: boolean

  constructor(client: Client, stream: string, { group, payload }: ExplainOptions) {
    this.#client = client
    this.#stream = stream
    this.#group = group
    this.#wantsPayload = payload === true
  }

  /** What the stream has of a job. A delayed publish has an entry under another id, which is looked for. */
  async look(jobId: string, searchPages = SEARCH_PAGES): Promise<Looked> {
    const entryId = hasMadeId(jobId) ? '' : jobId
    const facts = await this.#facts(jobId, entryId)
    if (entryId !== '') return { jobId, facts, search: { how: 'found', entryId } }
    if (facts.delayed !== undefined) return { jobId, facts, search: { how: 'absent' } }
    const search = await searchDelayedEntry(this.#client, this.#stream, jobId, searchPages)
    if (search.how !== 'found') return { jobId, facts, search }
    return { jobId, facts: await this.#facts(jobId, search.entryId), search }
  }

  /** The job that is meant by an id that is none's. */
  async alias({ jobId, facts }: Looked): Promise<{ jobId: string; asked: AskedId } | undefined> {
    if (facts.carries !== undefined) {
      return { jobId: facts.carries, asked: { id: jobId, is: 'entry', group: null } }
    }
    const found = await readAlias(this.#client, this.#stream, jobId, this.#groups(facts))
    if (found === undefined) return undefined
    const is = found.is === 'dead' ? 'dead letter' : 'entry of the redelivery stream'
    return { jobId: found.jobId, asked: { id: jobId, is, group: found.group } }
  }

  async explain({ jobId, facts, search }: Looked, asked: AskedId | null): Promise<Explanation> {
    const entryId = search.how === 'found' ? search.entryId : ''
    const { delayed, nowMs, oldestId } = facts
    const names = this.#groups(facts)
    const about = { jobId, entryId, wantsPayload: this.#wantsPayload }
    const dueMs = delayed !== undefined && Number.isFinite(delayed.dueMs) ? delayed.dueMs : null
    const told: Told = { stream: this.#stream, jobId, job: facts, search }
    const seen = delayed === undefined ? await readGroupFacts(this.#client, this.#stream, about, names) : []
    const states =
      delayed === undefined
        ? explainedGroups(told, seen)
        : names.map((group) => ({ group, state: { at: 'delayed' as const, dueMs }, ...NOTHING }))
    const lookedTo = search.how === 'gave-up' ? search.lookedTo : null
    const subject = {
      ...{ stream: this.#stream, id: jobId, publishedMs: timeOf(jobId), nowMs },
      oldestMs: oldestId === undefined ? null : timeOf(oldestId),
    }
    const groups = states.map((one): ExplainedGroup => {
      return { ...one, sentences: groupSentences({ ...subject, group: one.group }, one) }
    })
    const isKnown = facts.job !== undefined || delayed !== undefined || states.some(({ state }) => isKnownIn(state))
    const explanation = {
      ...{ stream: this.#stream, id: jobId, asked, isKnown, nowMs },
      history: historyOf(facts),
      job: this.#job(told, seen),
      delayed: delayed === undefined ? null : { dueMs, problem: delayed.problem },
      lookedTo,
      cancelledMs: facts.cancelledMs ?? null,
      paused: pausedOf(facts.paused, nowMs),
      groups,
    }
    return { ...explanation, sentences: jobSentences(explanation, absenceOf(told)) }
  }

  /** As its entry says; where that is gone, as a group has it. */
  #job({ jobId, job, search }: Told, seen: readonly GroupFacts[]): ExplainedJob | null {
    const told = job.job ?? seen.find((facts) => facts.job !== undefined)?.job
    if (told === undefined) return null
    const { name, bytes, replayOf, payload } = told
    const cron = tickOf(told.cron)
    const { unique } = job
    const entryId = search.how === 'found' && job.job !== undefined ? search.entryId : null
    const held = unique && { unique: { key: unique.key, holder: unique.holder || null } }
    const own = { name, entryId, publishedMs: timeOf(jobId), bytes, replayOf, ...(cron && { cron }), ...held }
    return this.#wantsPayload ? { ...own, payload } : own
  }

  async #facts(jobId: string, entryId: string): Promise<JobFacts> {
    const asked = { jobId, entryId, wantsPayload: this.#wantsPayload, mostGroups: MOST_GROUPS + 100 }
    const seen = await readJobFacts(this.#client, this.#stream, asked)
    if (seen.kind === 'stream') return seen
    if (seen.kind === 'other') throw new RedisError('ERR_REDIS_REFUSED', otherType(this.#stream, seen.type))
    await existingStream(this.#client, this.#stream)
    // It came about between the two looks.
    return this.#facts(jobId, entryId)
  }

  /** The groups to be told of. @throws UnknownGroupError for one that is not there; MillraceError if there are too many. */
  #groups({ groups, groupCount }: JobFacts): readonly string[] {
    const group = this.#group
    if (group === undefined) {
      if (groupCount <= MOST_GROUPS) return [...groups].sort()
      throw new MillraceError(
        'ERR_OPTION',
        `stream ${this.#stream} has ${groupCount} groups, more than the ${MOST_GROUPS} that are explained at once: name one`,
      )
    }
    if (groups.includes(group) || groupCount > groups.length) return [group]
    throw new UnknownGroupError({ stream: this.#stream, group, groups }, didYouMean(group, groups))
  }
}

const NOTHING = { cancelledMs: null, paused: null, rewinds: [] }

function historyOf({ entries, oldestId, newestId, hasLost }: JobFacts): Explanation['history'] {
  return { entries, oldestId: oldestId ?? null, newestId: newestId ?? null, hasLost: hasLost ?? null }
}
