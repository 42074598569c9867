import type { ContenderName } from '../contenders/contender.ts'

/** What one process is told to measure. Warm-up comes first in the same process and is in no figure. */
export type Task =
  | { readonly step: 'publish'; readonly how: PublishHow; readonly jobs: number; readonly warmUpJobs: number }
  | ProcessTask
  | { readonly step: 'latency'; readonly samples: number; readonly warmUpSamples: number; readonly everyMs: number }
  | CyclesTask
  | LifecycleTask
  | OutageTask
  | ControlTask
  | TimeTask
  | BatchesTask
  | { readonly step: 'idle' }

/** What has a worker and a system of its own. */
export type TimeTask = SchedulesTask | ChainTask | ResultsTask | OrderedTask

export type PublishHow = 'many' | 'in-flight' | 'awaited'

export interface ProcessTask {
  readonly step: 'process'
  /** How many wait when it begins; those after the timed ones may be left waiting. */
  readonly waitingJobs: number
  readonly warmUpJobs: number
  /** How many are timed. */
  readonly jobs: number
  readonly concurrency: number
  /** How it is looked at meanwhile. @default 'metrics' */
  readonly observed?: Observed
}

/** `none`: without a registry; `metrics`: with one that nobody scrapes; `scraped`: every second; `tracing`: with the option, and no SDK. */
export type Observed = 'none' | 'metrics' | 'scraped' | 'tracing'

export interface CyclesTask {
  readonly step: 'cycles'
  readonly cycles: number
  readonly warmUpCycles: number
  readonly jobsPerCycle: number
  readonly concurrency: number
}

export interface LifecycleTask {
  readonly step: 'lifecycle'
  readonly what: 'retry' | 'schedule' | 'promote' | 'redrive'
  readonly jobs: number
  /** How many go the same way before. */
  readonly warmUpJobs: number
  readonly concurrency: number
}

/** It has a Redis of its own, which it takes away. */
export interface OutageTask {
  readonly step: 'outage'
  readonly what: 'away' | 'restarts'
  readonly jobs: number
}

export interface ControlTask {
  readonly step: 'control'
  readonly what: 'unique' | 'streams' | 'limited'
  readonly jobs: number
  readonly warmUpJobs: number
  readonly concurrency: number
  /** Of the limit. */
  readonly perSecond: number
  /** How long it is looked at. */
  readonly seconds: number
}

/** Schedules that are due at the same second. */
export interface SchedulesTask extends Pick<ProcessTask, 'jobs' | 'concurrency'> {
  readonly step: 'schedules'
}

/** Jobs that each write a row. */
export interface BatchesTask extends Pick<ProcessTask, 'waitingJobs' | 'warmUpJobs' | 'jobs' | 'concurrency'> {
  readonly step: 'batches'
  /** How many of them share a write at most. */
  readonly size: number
}

/** `near`: to a stream of the same slot; `far`: to another; `producer`: as a handler without `job.publish` does it. */
export interface ChainTask {
  readonly step: 'chain'
  readonly how: 'near' | 'far' | 'producer'
  readonly jobs: number
  readonly warmUpJobs: number
  readonly concurrency: number
}

/** Callers that wait for results. */
export interface ResultsTask extends Pick<ProcessTask, 'warmUpJobs' | 'jobs' | 'concurrency'> {
  readonly step: 'results'
  /** How many wait at any time. */
  readonly callers: number
}

/** Jobs with keys, and the same without their order. */
export interface OrderedTask extends Pick<ProcessTask, 'warmUpJobs' | 'jobs' | 'concurrency'> {
  readonly step: 'ordered'
  readonly keys: number
  readonly inOrder: boolean
}

/** What came out, by name; the unit is in the name. */
export type Figures = Readonly<Record<string, number>>

export interface Order {
  readonly kind: 'measure'
  readonly contender: ContenderName
  readonly url: string
  readonly task: Task
}

export interface Stop {
  readonly kind: 'stop'
}

export type Answer =
  | { readonly kind: 'figures'; readonly figures: Figures }
  | { readonly kind: 'failed'; readonly message: string }
  /** An idle worker stands by until it is told to stop. */
  | { readonly kind: 'ready' }
