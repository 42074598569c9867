import type { ContenderName } from '../contenders/contender.ts'

/**
 * How much is measured. Rates can be compared whatever they were counted over, so the slower ones get fewer jobs: each timed
 * period is to be a second or more.
 */
export interface Scale {
  readonly rounds: number
  /** For figures that hardly vary, or take long. */
  readonly fewRounds: number
  /** For differences of a few per cent. */
  readonly observedRounds: number
  /** Jobs in bulk, by who handles them. */
  readonly fastJobs: number
  readonly slowJobs: number
  readonly awaitedJobs: number
  readonly warmUpShare: number
  readonly latencySamples: number
  readonly memoryJobs: number
  /** Jobs by slots; what is left out is not measured. */
  readonly slotJobs: Readonly<Partial<Record<1 | 10 | 100, number>>>
  readonly backlogJobs: number
  readonly backlogTimedJobs: number
  readonly cycles: number
  readonly persistedJobs: number
  readonly persistenceModes: readonly PersistenceMode[]
  readonly idleMs: number
  readonly idleSettleMs: number
  readonly lifecycle: LifecycleScale
  readonly recovery: RecoveryScale
  readonly scrape: ScrapeScale
  readonly outage: OutageScale
  readonly control: ControlScale
  readonly time: TimeScale
}

export type PersistenceMode = 'off' | 'everysec' | 'always'

/** Jobs that are published while Redis is away, and in bulk while it comes and goes. */
export interface OutageScale {
  readonly buffered: number
  readonly many: number
}

/** Publishes with a unique key, jobs of two streams, and a limit. */
export interface ControlScale {
  readonly unique: { readonly fast: number; readonly slow: number }
  readonly streams: number
  readonly perSecond: number
  readonly seconds: number
}

/** How many there are of what has to do with time, and with what comes back. */
export interface TimeScale {
  readonly schedules: number
  readonly results: { readonly fast: number; readonly slow: number }
  readonly ordered: { readonly jobs: number; readonly keys: number }
}

/** What an exporter tells of, and how often it is asked. */
export interface ScrapeScale {
  readonly streams: number
  readonly groups: number
  readonly entries: number
  readonly pending: number
  readonly scrapes: number
  readonly pageSeries: number
}

/** Jobs that fail or wait, by what happens to them; the same is asked of both where both take seconds. */
export type LifecycleScale = Readonly<
  Record<'retried' | 'scheduled' | 'promoted' | 'dead', { readonly fast: number; readonly slow: number }>
>

/** How long a history recovery is measured on, and how much of it is copied. */
export interface RecoveryScale {
  readonly entries: number
  /** Of the stream that questions about the long one are compared with. */
  readonly fewEntries: number
  readonly copied: number
  readonly pacedPerSecond: number
  readonly pacedSeconds: number
  /** How often each question is asked. */
  readonly questions: number
}

export const FULL: Scale = {
  rounds: 5,
  fewRounds: 3,
  observedRounds: 9,
  fastJobs: 250_000,
  slowJobs: 20_000,
  awaitedJobs: 15_000,
  // A worker runs for days: what is compared is code that the engine has compiled.
  warmUpShare: 0.4,
  latencySamples: 2000,
  memoryJobs: 100_000,
  slotJobs: { 1: 30_000, 10: 150_000, 100: 250_000 },
  backlogJobs: 1_000_000,
  backlogTimedJobs: 200_000,
  cycles: 200,
  persistedJobs: 150_000,
  persistenceModes: ['off', 'everysec', 'always'],
  idleMs: 10_000,
  idleSettleMs: 2000,
  lifecycle: {
    retried: { fast: 50_000, slow: 20_000 },
    scheduled: { fast: 100_000, slow: 20_000 },
    promoted: { fast: 100_000, slow: 100_000 },
    dead: { fast: 10_000, slow: 10_000 },
  },
  recovery: {
    entries: 2_000_000,
    fewEntries: 2000,
    copied: 300_000,
    pacedPerSecond: 2000,
    pacedSeconds: 10,
    questions: 50,
  },
  scrape: { streams: 200, groups: 3, entries: 200, pending: 50, scrapes: 10, pageSeries: 5000 },
  outage: { buffered: 90_000, many: 1_000_000 },
  control: { unique: { fast: 200_000, slow: 20_000 }, streams: 250_000, perSecond: 1000, seconds: 60 },
  time: { schedules: 10_000, results: { fast: 100_000, slow: 15_000 }, ordered: { jobs: 60_000, keys: 10_000 } },
}

/** Only whether it runs: each process that is started takes longer than its work, so what differs in a number alone is left out. */
export const QUICK: Scale = {
  rounds: 1,
  fewRounds: 1,
  observedRounds: 1,
  fastJobs: 5000,
  slowJobs: 1000,
  awaitedJobs: 300,
  warmUpShare: 0.2,
  latencySamples: 100,
  memoryJobs: 2000,
  slotJobs: { 1: 1000 },
  backlogJobs: 20_000,
  backlogTimedJobs: 4000,
  cycles: 3,
  persistedJobs: 2000,
  persistenceModes: ['always'],
  idleMs: 500,
  idleSettleMs: 100,
  lifecycle: {
    retried: { fast: 500, slow: 500 },
    scheduled: { fast: 1000, slow: 1000 },
    promoted: { fast: 1000, slow: 1000 },
    dead: { fast: 500, slow: 500 },
  },
  recovery: {
    entries: 4000,
    fewEntries: 400,
    copied: 1000,
    pacedPerSecond: 1000,
    pacedSeconds: 1,
    questions: 3,
  },
  scrape: { streams: 10, groups: 3, entries: 20, pending: 5, scrapes: 2, pageSeries: 200 },
  outage: { buffered: 1000, many: 5000 },
  control: { unique: { fast: 1000, slow: 300 }, streams: 2000, perSecond: 100, seconds: 1 },
  time: { schedules: 100, results: { fast: 1000, slow: 300 }, ordered: { jobs: 1000, keys: 100 } },
}

/** How many jobs of a bulk a contender gets. */
export function jobsFor(contender: ContenderName, { fastJobs, slowJobs }: Scale): number {
  return contender === 'millrace' || contender === 'raw' ? fastJobs : slowJobs
}
