import { monotonicMs } from '../clock.ts'
import { answersAnew } from '../redis/probe.ts'
import type { RedisTarget } from '../redis/target.ts'
import { healthOf, judge, unjudged, type Condition, type Judged, type Look, type WorkerHealth } from './health.ts'
import type { LeaseTable } from './table.ts'

/** Looks at a worker's signs of life a few times a second, from the keeper's thread, and probes Redis where that is asked for. */

/** Often enough for a verdict within a second, and cheap: a look reads a few words of memory. */
const LOOK_MS = 250
const PROBE_EVERY_MS = 1000
const PROBE_TIMEOUT_MS = 2000

export class HealthWatch {
  readonly #target: RedisTarget
  readonly #table: LeaseTable
  readonly #onChange: (condition: Condition) => void
  #limits: { stallMs: number; leaseMs: number }
  #judged: Judged
  #told: Condition | undefined
  #lookedAtMs = monotonicMs()
  #probedAtMs = -Infinity
  #probing = false
  #probe: Look['probe']
  #looking: NodeJS.Timeout | undefined

  constructor(
    { target, table }: { target: RedisTarget; table: LeaseTable },
    settings: { stallMs: number; leaseMs: number; hasJustJoined: boolean },
    onChange: (condition: Condition) => void,
  ) {
    this.#target = target
    this.#table = table
    this.#limits = settings
    this.#judged = unjudged(settings)
    this.#onChange = onChange
  }

  start(): void {
    // Replies are counted from here on, not from the first look.
    const { ticks, vitals } = this.#table
    this.#judged = { ...this.#judged, signs: { ...vitals.signs, ticks } }
    this.#lookedAtMs = monotonicMs()
    this.#looking = setInterval(() => this.look(), LOOK_MS)
  }

  stop(): void {
    clearInterval(this.#looking)
  }

  /** Another lease was declared for the group: the group's counts. */
  follow(leaseMs: number): void {
    this.#limits = { ...this.#limits, leaseMs }
  }

  /** What the worker answers now. */
  look(): WorkerHealth {
    const nowMs = monotonicMs()
    const { ticks, vitals } = this.#table
    const { stallMs, leaseMs } = this.#limits
    const elapsedMs = nowMs - this.#lookedAtMs
    this.#judged = judge(this.#judged, { ...vitals.signs, ticks, elapsedMs, probe: this.#probe, stallMs, leaseMs })
    this.#lookedAtMs = nowMs
    this.#probe = undefined
    if (this.#judged.wantsProbe && !this.#probing && nowMs - this.#probedAtMs >= PROBE_EVERY_MS) void this.#ask()
    this.#tell(this.#judged)
    return healthOf(vitals.signs.state, this.#judged)
  }

  /** The first look is told in any case: what a thread that died said last may no longer be so. */
  #tell({ stalled, stuck, reached }: Condition): void {
    const told = this.#told
    if (stalled === told?.stalled && stuck === told.stuck && reached === told.reached) return
    this.#told = { stalled, stuck, reached }
    this.#onChange(this.#told)
  }

  async #ask(): Promise<void> {
    this.#probing = true
    const answered = await answersAnew(this.#target, PROBE_TIMEOUT_MS)
    this.#probe = answered ? 'answered' : 'failed'
    this.#probedAtMs = monotonicMs()
    this.#probing = false
  }
}
