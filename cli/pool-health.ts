import type { WorkerHealth } from '../src/index.ts'
import type { Page } from './metrics-server.ts'
import type { Pool } from './pool.ts'

/**
 * The health of a worker pool: each process is asked, and it answers from its lease keeper's thread, also while a handler
 * blocks its event loop. The pool is live if no process is found not live, and ready if every process is.
 *
 * A process that is being started or replaced is not ready, and that is all that is held against it. One that was ready and
 * then does not answer at all for SILENT_MS is not live: its keeper restarts in much less.
 */

/** Less than the second that a probe waits by default. */
const PATIENCE_MS = 800
const SILENT_MS = 30_000

/** What is known of one process. */
interface Told {
  readonly pid: number
  readonly live: boolean
  readonly ready: boolean
  readonly state: string
  readonly reasons: readonly string[]
}

export class PoolHealth {
  readonly #pool: Pool
  /** Since when each process, by pid, has not answered. */
  readonly #silentSince = new Map<number, number>()

  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** For a probe that would restart us: 200, or 503 with the reason. */
  async livez(): Promise<Page> {
    const processes = await this.#ask()
    return page(
      processes.every(({ live }) => live),
      processes,
    )
  }

  /** For a probe that waits for us, or takes us off: 200, or 503 with the reason. */
  async readyz(): Promise<Page> {
    const processes = await this.#ask()
    const areAllThere = processes.length === this.#pool.size && !this.#pool.isDraining
    return page(areAllThere && processes.every(({ ready }) => ready), processes)
  }

  async #ask(): Promise<Told[]> {
    const { members } = this.#pool
    for (const pid of this.#silentSince.keys()) {
      if (!members.some((member) => member.pid === pid)) this.#silentSince.delete(pid)
    }
    return Promise.all(members.map(({ pid, worker }) => this.#askOne(pid, worker?.healthPort)))
  }

  async #askOne(pid: number, port: number | undefined): Promise<Told> {
    if (port === undefined) {
      return { pid, live: true, ready: false, state: 'starting', reasons: ['the process is not ready yet'] }
    }
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(PATIENCE_MS) })
      const { live, ready, state, reasons } = (await answer.json()) as WorkerHealth
      if (typeof live !== 'boolean') throw new Error('another program answers there')
      this.#silentSince.delete(pid)
      return { pid, live, ready, state, reasons }
    } catch {
      const nowMs = performance.now()
      const sinceMs = this.#silentSince.get(pid) ?? nowMs
      this.#silentSince.set(pid, sinceMs)
      const isSilent = nowMs - sinceMs > SILENT_MS
      return { pid, live: !isSilent, ready: false, state: 'unknown', reasons: ['the process does not answer'] }
    }
  }
}

function page(isGood: boolean, processes: readonly Told[]): Page {
  const body = { status: isGood ? 'ok' : 'failing', processes }
  return { status: isGood ? 200 : 503, type: 'application/json', body: `${JSON.stringify(body)}\n` }
}
