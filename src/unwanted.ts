import type { KnownJobs } from './known-jobs.ts'
import type { Logger } from './logger.ts'

/** When it is looked at after the first job that is skipped, and how often while more are: the other worker may come later. */
const FIRST_MS = 1000
const EVERY_MS = 30_000
const MOST_NAMES = 100
const MOST_SAID = 10

/**
 * Says where a worker skips jobs that another one of its group has a handler for, since they were given another `accept`. What is
 * skipped is settled: nothing else would tell that it did not run.
 */
export class Unwanted {
  readonly #known: KnownJobs
  readonly #logger: Logger
  /** Those that were skipped and of which nothing was said. */
  readonly #names = new Set<string>()
  #last = ''
  #waitMs = FIRST_MS
  #timer: NodeJS.Timeout | undefined

  constructor(known: KnownJobs, logger: Logger) {
    this.#known = known
    this.#logger = logger
  }

  skipped(name: string): void {
    if (name !== this.#last && this.#names.size < MOST_NAMES) this.#names.add(name)
    this.#last = name
    if (this.#timer !== undefined) return
    this.#timer = setTimeout(() => void this.#look(), this.#waitMs).unref()
    this.#waitMs = EVERY_MS
  }

  async #look(): Promise<void> {
    const known = await this.#known.elsewhere()
    this.#timer = undefined
    this.#last = ''
    const jobs = [...this.#names].filter((name) => known?.has(name) === true).slice(0, MOST_SAID)
    if (jobs.length === 0) return
    for (const name of jobs) this.#names.delete(name)
    this.#logger.warn(
      { jobs },
      'skipped jobs that another worker of the group runs: give all its workers the same accept',
    )
  }
}
