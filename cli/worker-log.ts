import { CliError, EXIT } from './exit.ts'
import type { Log } from './logging.ts'
import { plural, spanText } from './output.ts'
import type { PoolEvents, PoolResult } from './pool.ts'

/** What the supervisor of a worker pool says on the way. */

export interface PoolFacts {
  readonly stream: readonly string[]
  readonly group: string
  readonly processes: number
  readonly concurrency: number
  /** What was typed. */
  readonly lease?: number
  /** Set where the pool waits for Redis as long as it takes. */
  readonly metricsPort?: number
}

/** Handlers that are loaded and not ready after this long are said to wait for Redis. */
const SLOW_START_MS = 2000

export class WorkerLog {
  readonly #log: Log
  readonly #facts: PoolFacts
  #slowStart: NodeJS.Timeout | undefined
  #isTitled = false
  #isAnyReady = false

  constructor(log: Log, facts: PoolFacts) {
    this.#log = log
    this.#facts = facts
  }

  /** What a pool is to be given. */
  get events(): PoolEvents {
    const log = this.#log
    return {
      loaded: () => this.#loaded(),
      ready: ({ pid, consumer, leaseMs }) => this.#ready({ worker: pid, consumer, leaseMs }),
      allReady: () => log.say('ready', { processes: this.#facts.processes }),
      replaced: ({ pid, why, delayMs }) =>
        log.say(
          `worker ${pid} ended (${why}), a new one in ${wholeSeconds(delayMs)}`,
          { worker: pid, why, delayMs },
          'warn',
        ),
      failed: () => log.say('draining: a worker cannot start again', {}, 'error'),
      killed: (pid) =>
        log.say(`worker ${pid} did not end in time and is killed; its jobs run elsewhere`, { worker: pid }, 'error'),
    }
  }

  draining(signal: string, drainMs: number): void {
    const time = drainMs === 0 ? 'running jobs are handed back' : `running jobs have ${wholeSeconds(drainMs)} to finish`
    this.#log.say(`${signal}: draining, ${time}; a second signal ends at once`, { signal, drainMs })
  }

  /** The summary and the exit code. @throws CliError where the pool ended by itself. */
  end({ failure, done, replaced, lost }: PoolResult): number {
    clearTimeout(this.#slowStart)
    const isWhole = lost === 0 && done.unsettled === 0
    if (this.#isAnyReady) {
      const facts = [`${plural(done.completed, 'job')} completed`]
      if (done.failed > 0) facts.push(`${plural(done.failed, 'run')} failed`)
      if (done.cancelled > 0) facts.push(`${plural(done.cancelled, 'job')} cancelled`)
      if (done.skipped > 0) facts.push(`${plural(done.skipped, 'job')} skipped`)
      if (done.dead > 0) facts.push(`${plural(done.dead, 'job')} dead-lettered`)
      if (done.handedBack > 0) facts.push(`${plural(done.handedBack, 'job')} handed back`)
      if (done.unsettled > 0) facts.push(`${plural(done.unsettled, 'job')} to run again: Redis took no outcome of them`)
      if (replaced > 0) facts.push(`${plural(replaced, 'worker')} replaced, whose jobs are not in these numbers`)
      if (lost > 0) facts.push(`${plural(lost, 'worker')} did not drain, and what it ran runs elsewhere`)
      const counts = { ...done, replaced, lost }
      this.#log.say(`worker pool ended: ${facts.join(', ')}`, counts, isWhole ? 'info' : 'warn')
    }
    if (failure !== undefined) throw new CliError(failure.message, failure.exitCode)
    return isWhole ? EXIT.ok : EXIT.failed
  }

  #loaded(): void {
    if (this.#isAnyReady) return
    this.#slowStart ??= setTimeout(() => {
      this.#title()
      const wait = this.#facts.metricsPort === undefined ? 'waiting for Redis, 10 s at most' : 'waiting for Redis'
      this.#log.say(wait, {}, 'warn')
    }, SLOW_START_MS)
  }

  #ready(worker: { worker: number; consumer: string; leaseMs: number }): void {
    clearTimeout(this.#slowStart)
    this.#isAnyReady = true
    this.#title()
    const { leaseMs } = worker
    const isOther = leaseMs !== (this.#facts.lease ?? 10_000)
    const lease = isOther ? `, with the group's lease of ${spanText(leaseMs / 1000)}` : ''
    this.#log.say(`worker ${worker.worker} ready${lease}`, worker)
  }

  /** Once, and not before it is known to be right: what is wrong is told in one line. */
  #title(): void {
    if (this.#isTitled) return
    this.#isTitled = true
    const { stream, group, processes, concurrency } = this.#facts
    const size = `${processes} ${processes === 1 ? 'process' : 'processes'} x ${plural(concurrency, 'slot')}`
    this.#log.say(
      `worker pool: ${stream.length === 1 ? 'stream' : 'streams'} ${stream.join(', ')}, group ${group}, ${size}`,
      { processes, concurrency },
    )
  }
}

function wholeSeconds(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000} s` : `${ms} ms`
}
