export { Producer } from './producer.ts'
export type { CloseResult, PublishedMany } from './publish/results.ts'
export type { JobUniqueOptions, UniqueOptions } from './publish/unique.ts'
export type { OnFailure, OrderBy } from './publish/order.ts'
export type { BufferedJob, PublishedJob, PublishResult, ReplicatedJob } from './publish/outcomes.ts'
export type { ResultOptions, ResultWaitOptions, WithResult } from './results/options.ts'
export type {
  AwaitedPublishOptions,
  BufferOptions,
  DurablePublishOptions,
  ProducerOptions,
  PublishManyOptions,
  PublishOptions,
} from './producer-options.ts'
export type { BufferLevel, ProducerEventName, ProducerEventPayloads, SpillRecovery } from './producer-events.ts'
export type { Durability, ReplicaDurability } from './publish/durability.ts'
export type { BufferPriority } from './publish/priority.ts'
export type { ShedJob, UnpublishedJob, UnpublishedOptions } from './publish/unpublished.ts'
export { Feed } from './publish/feed.ts'
export type { FedJob, FeedJob, FeedOptions } from './publish/feed-options.ts'
export { Worker } from './worker.ts'
export type { StopResult } from './drain.ts'
export type { WorkerOptions } from './worker-options.ts'
export type { DeclaredCron } from './cron/declared.ts'
export type { CronJob, CronSchedule } from './cron/schedule.ts'
export type { CatchUp, Overlap } from './cron/plan.ts'
export type { CronList, CronListOptions, CronSchedules, CronSetResult, CronStand } from './cron/schedules.ts'
export type { CronTick } from './cron/tick.ts'
export type { LimitOptions, RateOptions } from './limits/limit.ts'
export type { StreamPriority, WorkerStream } from './worker-streams.ts'
export type { WorkerHealth } from './lease/health.ts'
export type { HealthAddress } from './lease/health-server.ts'
export type { WorkerCounts } from './counts.ts'
export { StreamMetrics } from './stream-metrics.ts'
export type { StreamMetricsOptions } from './stream-metrics.ts'
export type { MetricsRegistry } from './metrics/metric.ts'
export { attachBuildInfo } from './metrics/process-metrics.ts'
export { Inspector } from './inspector.ts'
export type { InspectorOptions } from './inspector.ts'
export type { JobResult, ResultLookOptions } from './results/inspected.ts'
export type {
  Rescheduled,
  RescheduleOptions,
  Scheduled,
  ScheduledJob,
  ScheduledJobDetail,
  ScheduledJobs,
  ScheduledListOptions,
} from './scheduled.ts'
export type { CancelledInGroup, CancelOptions, CancelResult } from './cancel.ts'
export type { JobPlace } from './redis/whereabouts.ts'
export type {
  DeadErrors,
  DeadErrorsOptions,
  DeadLetterDetails,
  DeadLetters,
  DeadListOptions,
  DeadPage,
  DeadResult,
  PurgeOptions,
  RedriveOptions,
} from './dead/letters.ts'
export { DEAD_REASONS } from './dead/filter.ts'
export type { DeadFilter } from './dead/filter.ts'
export type { Diagnosis, DoctorOptions } from './doctor/doctor.ts'
export type { DoctorCheck, DoctorFinding, FindingLevel, FindingPlace } from './doctor/finding.ts'
export type { DeadErrorGroup } from './dead/errors.ts'
export type { DeadPlan, DeadProgress, DeadRefusal } from './dead/moves.ts'
export type { DeadLetter } from './redis/dead.ts'
export type { DeadField } from './redis/dead-fields.ts'
export type { ExplainOptions } from './explain/explain.ts'
export type {
  AskedId,
  ExplainedGroup,
  ExplainedJob,
  Explanation,
  GroupState,
  Paused,
  Rewound,
  Sentence,
  StreamHistory,
} from './explain/explanation.ts'
export type { ExplainedNotes, NotedLine } from './explain/explanation.ts'
export type { FindOptions, FindProgress, Found, FoundJob } from './find.ts'
export { PartlyDoneError } from './partly-done.ts'
export { ABANDONED_AFTER_MS } from './stats.ts'
export type { GroupStats, Pins, ScheduledStats, StreamStats } from './stats.ts'
export type { CreateGroupOptions, GroupRemoval, Groups } from './groups.ts'
export type {
  GroupSettingsChange,
  GroupSettingsStand,
  RecordSetting,
  Setting,
  Settings,
  SettingsChange,
  StreamSettings,
} from './settings.ts'
export type { RewindResult } from './rewind/rewind.ts'
export type { RewindOptions } from './rewind/asked.ts'
export type { Elsewhere } from './redis/rewinding.ts'
export type { GroupHistory, HistoryMinute, HistoryOptions } from './history.ts'
export type { PendingJob, PendingOptions, PendingPage } from './pending.ts'
export type { TailEntry, TailNotice, TailOptions } from './tail.ts'
export type { WorkerRow, WorkersPage } from './group-workers.ts'
export type { PauseOptions, PauseResult, ResumeResult } from './pauses.ts'
export type { Pause } from './redis/pause.ts'
export type { TrimOptions, TrimResult } from './trims.ts'
export type { EntryCount, TrimPlan, Watermark } from './trim-plan.ts'
export type { Range } from './range.ts'
export type { ReplayResult, Replays, ResumeOptions } from './replay/replays.ts'
export type { ReplayOptions, ReplayProgress } from './replay/asked.ts'
export type { Histogram } from './replay/histogram.ts'
export type { ReplayPlan, ReplaySample } from './replay/plan.ts'
export type { Replay, ReplayStatus, ReplayTarget } from './replay/state.ts'
export type { AuditOptions, AuditResult } from './audit/audit.ts'
export type { AuditFinding, FindingKind } from './audit/findings.ts'
export type { AuditCounts, AuditMinute } from './audit/minutes.ts'
export type { AuditRepair } from './audit/repair.ts'
export { WhereError } from './where.ts'
export { removeStream } from './removal.ts'
export { defineJob, handle } from './job.ts'
export type { Handler, HandlerFunction, Handlers, Job, JobDefinition, JobOptions, SchemaJobOptions } from './job.ts'
export { handleBatch } from './batch/handle-batch.ts'
export type { BatchFunction, BatchOptions } from './batch/handle-batch.ts'
export type { BatchItem } from './batch/item.ts'
export type { BatchRun } from './batch/terms.ts'
export { handleAll } from './handle-all.ts'
export type { HandlersOf, OutputOf, ResultOf } from './handle-all.ts'
export type { Schema } from './schema.ts'
export type { Upcast, Upcasts } from './versions.ts'
export type { Headers } from './headers.ts'
export type { JobPublishOptions } from './onward/options.ts'
export type { PublishContext, PublishMiddleware } from './publish/middleware.ts'
export type { RunContext, RunMiddleware } from './run-middleware.ts'
export type { EventListener, ProducerEventListener } from './events.ts'
export type { EventName, EventPayloads, GroupEvent, JobEvent } from './event-table.ts'
export type {
  PublishEnd,
  PublishToTrace,
  RunOutcome,
  RunToTrace,
  SettleToTrace,
  TracedPublish,
  TracedRun,
  TracedSettle,
  Tracing,
} from './tracing.ts'
export type { EntryTrace, TraceContext } from './wire.ts'
export type { Backoff, ErrorClass, ErrorFilter, FailedAttempt, RetryOptions } from './retry.ts'
export type { DeadReason } from './decide.ts'
export type { Logger } from './logger.ts'
export type { RedisOption } from './redis/target.ts'
export {
  BufferFullError,
  CancelledError,
  FatalError,
  FeedError,
  InvalidDataError,
  JobTimeoutError,
  LeaseLostError,
  MillraceError,
  OptionError,
  PublishError,
  RetryAfterError,
  RedisError,
  ResultError,
  SpillError,
  StoppingError,
  UnknownGroupError,
} from './errors.ts'
export type { ErrorCode, Published, SchemaIssue } from './errors.ts'
