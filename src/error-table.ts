import type { ErrorCode } from './errors.ts'

/** What a caller who got a code asks next. docs/errors.md is made of this table by `npm run docs`. */
export interface ErrorNote {
  /** Who throws it, or gives it to whom. */
  readonly thrownBy: string
  /** Whether the job is in Redis. */
  readonly inRedis: string
  /** What to do. */
  readonly todo: string
}

const NOTHING_DONE = 'Not touched: nothing was sent.'
const STILL_THERE = 'Yes: it is pending.'

export const ERROR_TABLE: Readonly<Record<ErrorCode, ErrorNote>> = {
  ERR_OPTION: {
    thrownBy:
      'Every constructor and method, `defineJob` and `handle`: an option or argument is unknown, wrong or impossible.',
    inRedis: 'No. ' + NOTHING_DONE,
    todo: 'Correct the call; the message says what was expected.',
  },
  ERR_NAME: {
    thrownBy: 'The same, for a stream, group or job name that is not allowed.',
    inRedis: 'No. ' + NOTHING_DONE,
    todo: 'Use a name of the characters and the length that the message gives.',
  },
  ERR_PAYLOAD: {
    thrownBy: '`publish` and `publishMany`: the data has no JSON, or more bytes of it than `maxPayloadBytes`.',
    inRedis: 'No. Of a `publishMany`, `confirmed` of the jobs before it are.',
    todo: 'Publish what JSON can hold; store large data elsewhere and publish where it is.',
  },
  ERR_INVALID_DATA: {
    thrownBy:
      '`publish`, `publishMany` and a feed, as an `InvalidDataError`: the data, as JSON carries it, does not fit the schema of its ' +
      'job. The text says where; `issues` says what the schema does, which may quote the data. A delivery that does not fit is ' +
      'dead as `invalid` instead.',
    inRedis: 'No. Of a `publishMany`, `confirmed` of the jobs before it are.',
    todo: 'Publish what the schema accepts, also after JSON: a Date becomes a text, which a schema has to coerce.',
  },
  ERR_SCHEMA: {
    thrownBy:
      '`publish`, `publishMany` and a feed: the schema of the job threw, is async, or answered neither a value nor issues. At a ' +
      'delivery such a job is dead as `invalid`.',
    inRedis: 'No. Of a `publishMany`, `confirmed` of the jobs before it are.',
    todo: 'Use a schema that answers at once; what takes a look elsewhere belongs into the handler. `cause` is what it threw.',
  },
  ERR_HANDLERS: {
    thrownBy:
      '`new Worker` and `millrace worker`: there are no handlers, two for one job, or something that is no function.',
    inRedis: 'Not touched: the worker did not start.',
    todo: 'Correct the handlers, or the file that exports them.',
  },
  ERR_PUBLISH_TIMEOUT: {
    thrownBy:
      '`publish` and `publishMany`: Redis did not confirm within `timeoutMs`, or the producer was closed, or Redis no longer ' +
      'knows whether it took a batch.',
    inRedis: '`published` says it: `no` is certain, `unknown` is a batch that was on its way and got no answer.',
    todo: 'On `no` publish again. On `unknown` too, if the handler can bear the job twice; else look for it first.',
  },
  ERR_PUBLISH_REFUSED: {
    thrownBy:
      '`publish` and `publishMany`: Redis refuses the write, for example for want of memory or of a permission. And what a run has ' +
      'failed with whose `job.publish` a stream cannot take.',
    inRedis: '`published` says it: `no`, or `unknown` if an earlier try of the same batch got no answer.',
    todo: 'Repair what `cause` names in Redis, then publish again.',
  },
  ERR_PUBLISH_ABORTED: {
    thrownBy:
      '`publish`: its `signal` was aborted before the job was on its way, or while it was and Redis refused it for now.',
    inRedis: 'No.',
    todo: 'Nothing: you have taken it back.',
  },
  ERR_PUBLISH_SHED: {
    thrownBy:
      '`publish`: the buffer was full, and this job had the lowest `bufferPriority`; `onShed` was given it too.',
    inRedis: 'No.',
    todo: 'Keep it elsewhere in `onShed`, or do without it.',
  },
  ERR_BUFFER_FULL: {
    thrownBy:
      '`publish`, as a `BufferFullError`: `buffer.maxJobs` or `buffer.maxBytes` already wait in this producer for Redis; with ' +
      "`whenFull: 'wait'` there was no room until its time was up.",
    inRedis: 'No.',
    todo: 'Publish later, or tell your own caller to come back: Redis is away or slower than you publish.',
  },
  ERR_STREAM_FULL: {
    thrownBy:
      '`publish` and `publishMany`: the stream has as much backlog as its `maxBacklog` allows, and with ' +
      "`whenStreamFull: 'wait'` still had when its time was up.",
    inRedis: 'No. Of a `publishMany`, `confirmed` of the jobs before it are.',
    todo: 'Publish later; add workers, or raise `backlog.max` (`millrace settings`) if Redis has the memory.',
  },
  ERR_RUN_ENDED: {
    thrownBy: '`job.publish`: the handler of that run has ended already.',
    inRedis: 'No.',
    todo: 'Await in the handler whatever calls `job.publish`.',
  },
  ERR_RUN_PUBLISHES: {
    thrownBy: '`job.publish`: more than 100 calls, or 1 MiB, in one run. A run that does not catch it fails.',
    inRedis: 'No; nothing of a run that fails is.',
    todo: 'Publish one job that publishes the others; or publish with a producer, which is not in one step with the run.',
  },
  ERR_UNIQUE_GROUP: {
    thrownBy:
      '`publish`, `publishMany` and a feed: the job has a uniqueness key, several groups read the stream, and it does not say which ' +
      'of them settles it.',
    inRedis: 'No. Jobs of the same batch are.',
    todo: 'Name the group: `unique: { group }`, `--unique-group`.',
  },
  ERR_MEMORY_FULL: {
    thrownBy:
      '`publish` and `publishMany`: Redis uses more of its `maxmemory` than `maxMemoryShare`, and with ' +
      "`whenStreamFull: 'wait'` still did when its time was up.",
    inRedis: 'No. Of a `publishMany`, `confirmed` of the jobs before it are.',
    todo: 'Let workers drain the streams, shorten their retention, or give Redis more memory; then publish again.',
  },
  ERR_SPILL: {
    thrownBy:
      '`new Producer`, as a `SpillError`: the file at `buffer.spillFile` is not a spill file, or its folder is not there or ' +
      'cannot be written to. `close()` gives one as ' +
      '`spillError` when the file cannot be written.',
    inRedis: 'Not touched: the file is left as it is. What `close()` could not spill is in its `unpublished`.',
    todo: 'Give a path that nothing else uses; make room on the disk, and store what `unpublished` holds.',
  },
  ERR_MIDDLEWARE: {
    thrownBy:
      '`publish` and `publishMany`: a middleware of the producer threw, which is the `cause`, or ended without calling `next`. A ' +
      'run fails with it where a middleware of the worker did not call `next`, or did so twice.',
    inRedis:
      '`published` says it: `no` if `next` was not called, `yes` if the job was published before the middleware threw. A job ' +
      'whose run fails so is retried like any other.',
    todo: 'Repair the middleware. After a `yes` do not publish again.',
  },
  ERR_FEED_LOST: {
    thrownBy:
      '`feed.open()` and `feed.publish()`, and so `millrace publish --resume`: Redis no longer knows how far the feed was ' +
      '(its key was deleted or expired).',
    inRedis: 'Unknown from the position on that the message names; nothing was published again.',
    todo: 'Look what the stream has of it (`millrace find`), and begin a new feed behind that.',
  },
  ERR_FEED_BEHIND: {
    thrownBy:
      '`feed.publish()`: Redis has lost jobs of the feed that it had confirmed (a failover, or a restart without persistence), ' +
      'and knows only an earlier position of it.',
    inRedis: 'No. Neither are some before it; `feed.open()` gives the position behind the last one that is.',
    todo: 'Open the feed again and go on from the position that it gives. Look what `millrace doctor` says of persistence.',
  },
  ERR_FEED_TAKEN: {
    thrownBy: '`feed.publish()`: another process has opened the same feed since, and goes on with it.',
    inRedis: 'As the other process has it; of this call nothing was appended.',
    todo: 'Stop here. If nobody was to take it over, look for two processes with the same feed id.',
  },
  ERR_PRODUCER_CLOSED: {
    thrownBy: '`publish` and `publishMany` after, or during, `close()`.',
    inRedis: 'No. Of a `publishMany`, `confirmed` of the jobs before it are.',
    todo: 'Close the producer after whatever publishes has ended.',
  },
  ERR_REDIS_UNREACHABLE: {
    thrownBy:
      '`worker.start()` and `run()`, the inspector, `removeStream` and the CLI: there is no connection, or it was lost.',
    inRedis: 'Jobs stay as they are. A change that was asked for may or may not have been made.',
    todo: 'Check that Redis runs at the address in the message; for a change, look what became of it and ask again.',
  },
  ERR_REDIS_REFUSED: {
    thrownBy:
      'The same: the password or a permission is wrong, a key is of another type, or Redis cannot do what was asked.',
    inRedis: 'Jobs stay as they are; what was refused was not done.',
    todo: 'Repair what the message names, or use another stream name where its key belongs to someone else.',
  },
  ERR_REDIS_REPLY: {
    thrownBy: 'Whoever reads a reply of Redis that has another shape than Redis gives it.',
    inRedis: 'Unknown: the command may have been executed.',
    todo: 'Look for a proxy between that changes replies, or a server that is not Redis; report it if there is none.',
  },
  ERR_UNKNOWN_GROUP: {
    thrownBy:
      '`worker.start()` for a further group without `startAt`; the inspector and the CLI for a group that there is not.',
    inRedis: 'Jobs stay as they are; no group was created.',
    todo: "Correct the name (`groups` lists what there is), or give `startAt: 'oldest'` or `'now'` to begin a further group.",
  },
  ERR_NOT_FOUND: {
    thrownBy: 'The inspector and the CLI: there is no such stream, job or dead letter.',
    inRedis: 'No, not under what was asked for: it may be settled and trimmed, or never have been there.',
    todo: 'Check the name or the id, and that the address is the Redis that you mean.',
  },
  ERR_WORKER_STATE: {
    thrownBy: '`worker.start()` and `run()` of a worker that was started or stopped before.',
    inRedis: 'Jobs stay as they are.',
    todo: 'Make a new `Worker` to start again.',
  },
  ERR_LISTEN: {
    thrownBy: '`worker.start()` and `run()`: `healthPort` cannot be had on `healthHost`.',
    inRedis: 'Jobs stay as they are; the worker did not start.',
    todo: 'Choose a port that is free and allowed, or 0 for any.',
  },
  ERR_LEASE_LOST: {
    thrownBy: 'Reason of `job.signal`, as a `LeaseLostError`: another worker owns the job.',
    inRedis: STILL_THERE + ' It runs on that worker.',
    todo: 'Stop the run. If it happens often, look for event loops that stand still for long, or raise `leaseMs`.',
  },
  ERR_JOB_TIMEOUT: {
    thrownBy: 'Reason of `job.signal`, as a `JobTimeoutError`: the run took longer than `timeoutMs`.',
    inRedis:
      'Yes. Its lease is no longer renewed, so it is run again or dead-lettered, unless this run completes first.',
    todo: 'Stop the run. Give the job a `timeoutMs` that it can keep, or hand `job.signal` to what it waits for.',
  },
  ERR_STOPPING: {
    thrownBy: 'Reason of `job.signal`, as a `StoppingError`: the worker stops and `drainMs` is over.',
    inRedis: STILL_THERE + ' It is handed back and runs on another worker.',
    todo: 'Stop the run. Raise `drainMs`, and what your platform allows a process to end in, if jobs need longer.',
  },
  ERR_CANCELLED: {
    thrownBy: 'Reason of `job.signal`, as a `CancelledError`: somebody cancelled the job.',
    inRedis: 'Until this run ends: then it is settled and not run again, whether it completed or not.',
    todo: 'Stop the run and leave what it works on in order.',
  },
  ERR_RETRY_AFTER: {
    thrownBy:
      'Your handler, as `new RetryAfterError(ms)`: run this job again after this time, not after its usual back-off.',
    inRedis: 'Yes: it is scheduled, or a dead letter if its attempts are used up.',
    todo: 'Nothing: the handler has decided. It counts as a failed attempt.',
  },
  ERR_FATAL: {
    thrownBy: 'Your handler, as `new FatalError(message)`: trying again cannot help.',
    inRedis: 'As a dead letter with the reason `fatal`, whatever attempts it had left.',
    todo: 'Repair what the message names, then redrive the dead letter.',
  },
  ERR_WORKERS_ALIVE: {
    thrownBy:
      'Removing or rewinding a group, by the inspector or `millrace groups remove` and `rewind`: workers of it are alive.',
    inRedis: 'Jobs stay as they are; nothing was changed.',
    todo: 'Stop these workers first: they would make the group again, or run a job twice at once. Else force it.',
  },
  ERR_PENDING: {
    thrownBy: 'Rewinding a group: more than 500 jobs of the range are pending, more than one step of Redis may settle.',
    inRedis: 'Yes: they stay pending; nothing was changed.',
    todo: 'Let a worker finish them, or stop reading with `millrace pause` until they are done; then rewind.',
  },
  ERR_CANCELLED_FULL: {
    thrownBy:
      '`inspector.cancel`, `millrace cancel`, and a `publish` that is to replace a job: 100 000 jobs of the stream are noted as ' +
      'cancelled already.',
    inRedis: 'Yes, as before, but for the groups that the text names. The job of a publish is not.',
    todo: 'Notes last seven days. To be rid of very many jobs, remove the group, or let the handler end them.',
  },
  ERR_HISTORY: {
    thrownBy: 'Replay, rewind, find and audit: the range begins before what the stream still holds.',
    inRedis: 'Jobs stay as they are; nothing was begun.',
    todo: 'Ask from the entry that the message names on. Raise the retention of the stream if that is too late.',
  },
  ERR_REPLAY: {
    thrownBy:
      'Starting or resuming a replay: it was cancelled, or 100 replays that are not over hold the history of the stream.',
    inRedis: 'Jobs stay as they are; what a replay had copied stays copied.',
    todo: 'Begin another replay; finish or cancel those that nobody needs (`replays list`).',
  },
  ERR_NOT_DRAINED: {
    thrownBy: '`drained` of `millrace/testing`: the stream was not quiet in time.',
    inRedis: 'Jobs stay as they are; nothing was changed.',
    todo: 'The message says what was left: run a worker of the group, or give it more time.',
  },
  ERR_RESULT_TIMEOUT: {
    thrownBy:
      '`result()`, as a `ResultError`: the job had not ended when `timeoutMs` was over, or its end was not told: by a worker of an ' +
      'older release, or since its entry or group was deleted.',
    inRedis: 'Yes, as far as anybody knows: it may still run, or have ended untold.',
    todo: 'Ask again (`result()`, `inspector.result`) or look with `millrace explain`; do not publish it again.',
  },
  ERR_RESULT_ABORTED: {
    thrownBy: '`result()`, as a `ResultError`: its `signal` was aborted, which is the `cause`.',
    inRedis: 'Yes: only the wait has ended, and not the job.',
    todo: 'Nothing: you have given up waiting. To stop the job too, cancel it.',
  },
  ERR_RESULT_FAILED: {
    thrownBy: '`result()`, as a `ResultError`: the job is dead. `reason`, `attempts` and the text say of what.',
    inRedis: 'As a dead letter.',
    todo: 'Repair what the text names, then redrive the dead letter; `result()` of the same publish may be asked again then.',
  },
  ERR_RESULT_CANCELLED: {
    thrownBy: '`result()`, as a `ResultError`: somebody cancelled the job, or another one has taken its place.',
    inRedis: 'It is settled, and does not run again.',
    todo: 'Nothing, if that was meant.',
  },
  ERR_RESULT_SKIPPED: {
    thrownBy: '`result()`, as a `ResultError`: the group that was to answer does not want this job (`accept`).',
    inRedis: 'It is settled for that group; others may run it.',
    todo: 'Name the group that runs the job, or none.',
  },
  ERR_RESULT_TOO_LARGE: {
    thrownBy: '`result()`, as a `ResultError`: what the handler gave back is over the `maxResultBytes` of the worker.',
    inRedis: 'It is completed; only its result was not kept.',
    todo: 'Give back where the result is, or raise `maxResultBytes`.',
  },
  ERR_RESULT_NOT_JSON: {
    thrownBy: '`result()`, as a `ResultError`: what the handler gave back has no JSON.',
    inRedis: 'It is completed; only its result was not kept.',
    todo: 'Give back what JSON can hold, or nothing.',
  },
  ERR_RESULT_NOT_ASKED: {
    thrownBy:
      '`result()`, as a `ResultError`: the publish met a job that was there already, and that one was published without `result`, or with that of another group.',
    inRedis: 'Yes: the job that was there.',
    todo: 'Publish with `result` wherever jobs of this key or token are published.',
  },
}
