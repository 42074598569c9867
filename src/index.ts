export { Producer } from './producer.ts'
export type { CloseResult, ProducerOptions, PublishOptions, PublishResult } from './producer.ts'
export { Worker } from './worker.ts'
export type { StopResult } from './drain.ts'
export type { WorkerOptions } from './worker-options.ts'
export type { WorkerHealth } from './lease/health.ts'
export type { HealthAddress } from './lease/health-server.ts'
export type { WorkerCounts } from './counts.ts'
export { StreamMetrics } from './stream-metrics.ts'
export type { StreamMetricsOptions } from './stream-metrics.ts'
export type { MetricsRegistry } from './metrics/metric.ts'
export { Inspector } from './inspector.ts'
export type { InspectorOptions } from './inspector.ts'
export { ABANDONED_AFTER_MS } from './stats.ts'
export type { GroupStats, Pins, ScheduledStats, StreamStats } from './stats.ts'
export type { CreateGroupOptions, GroupRemoval, Groups } from './groups.ts'
export type { GroupSettingsStand, Setting, Settings, SettingsChange, StreamSettings } from './settings.ts'
export type { TrimOptions, TrimResult } from './trims.ts'
export type { EntryCount, TrimPlan, Watermark } from './trim-plan.ts'
export { removeStream } from './removal.ts'
export { defineJob, handle } from './job.ts'
export type { Handler, HandlerFunction, Handlers, Job, JobDefinition, JobOptions } from './job.ts'
export type { DeadReason } from './decide.ts'
export type { Logger } from './logger.ts'
export type { RedisOption } from './redis/target.ts'
export {
  JobTimeoutError,
  LeaseLostError,
  MillraceError,
  OptionError,
  PublishError,
  RedisError,
  StoppingError,
  UnknownGroupError,
} from './errors.ts'
export type { ErrorCode, Published } from './errors.ts'
