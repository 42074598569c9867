import type { MetricObjectWithValues, MetricValue } from 'prom-client'
import type { WorkerOptions } from '../src/index.ts'
import type { LogSettings } from './logging.ts'

/** What the supervisor and its worker processes tell each other over their channel. Plain data. */

/** What a worker process is to run. It goes over the channel, so that no password stands in an argument or a variable. */
export interface WorkerOrders {
  /** Path of the handlers file. */
  readonly handlers: string
  readonly options: Omit<WorkerOptions, 'handlers' | 'logger' | 'redis' | 'registry'> & { readonly redis: string }
  /** Whether the process is to measure itself and answer when it is asked for its metrics. */
  readonly isMeasured?: boolean
  /** How the process logs. @default the library's own logger */
  readonly log?: LogSettings
}

/** All metrics of a process at one moment. */
export type MetricsSnapshot = readonly MetricObjectWithValues<MetricValue<string>>[]

export type SupervisorMessage =
  { readonly kind: 'start'; readonly orders: WorkerOrders } | { readonly kind: 'measure' } | { readonly kind: 'drain' }

/** What a worker did, told when it ends. */
export interface WorkerEnd {
  readonly completed: number
  readonly failed: number
  readonly cancelled: number
  readonly skipped: number
  readonly dead: number
  readonly handedBack: number
  /** Outcomes that Redis would not take; these jobs run again. */
  readonly unsettled: number
}

/** Why a worker process could not start. */
export interface StartFailure {
  readonly message: string
  readonly exitCode: number
  /** Whether the next try may well succeed: Redis is away, and nothing is wrong with what we were told. */
  readonly mayPass: boolean
}

export type WorkerMessage =
  /** The handlers are loaded and the options are right; Redis is next. */
  | { readonly kind: 'loaded' }
  | {
      readonly kind: 'ready'
      readonly consumer: string
      readonly leaseMs: number
      /** Where its health is told, on the loopback interface. */
      readonly healthPort: number | undefined
    }
  /** The answer to `measure`, and once more before it ends. */
  | { readonly kind: 'measured'; readonly metrics: MetricsSnapshot }
  | { readonly kind: 'failed'; readonly failure: StartFailure }
  | { readonly kind: 'ended'; readonly end: WorkerEnd }
