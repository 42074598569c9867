import type { DeadReason } from './decide.ts'

/**
 * What a worker tells of, with what each event does not mean: people build alarms and counts on events, and the most common
 * mistake is to take one for more than it is. docs/events.md is made of this file by `npm run docs`.
 */

/** What every event says: whose it is. */
export interface GroupEvent {
  readonly stream: string
  readonly group: string
}

/** What every event of one job says beyond that. */
export interface JobEvent extends GroupEvent {
  /** The job's id, the same through retries and redrives. */
  readonly id: string
  /** The job's name; empty where the entry was not read, or is no job. */
  readonly job: string
  /** Which run it is by failures: 1 at first. */
  readonly attempt: number
  /** Which delivery of this entry it is: 1 at first. */
  readonly deliveries: number
  /** The entry that this worker holds; another one after a retry, while the id stays. */
  readonly entryId: string
}

/** What the listeners of each event are given. */
export interface EventPayloads {
  'job:started': JobEvent
  'job:completed': JobEvent
  'job:failed': JobEvent & { readonly error: unknown }
  'job:retried': JobEvent & { readonly error: unknown; readonly delayMs: number; readonly dueMs: number }
  'job:waiting': JobEvent & { readonly why: string; readonly delayMs: number; readonly dueMs: number }
  'job:dead': JobEvent & { readonly reason: DeadReason; readonly error: unknown }
  'job:cancelled': JobEvent
  'job:late': GroupEvent & { readonly count: number }
  'job:timed-out': JobEvent & { readonly timeoutMs: number }
  'job:overdue': JobEvent & { readonly ranMs: number }
  'job:lease-lost': JobEvent
  'job:handed-back': JobEvent
  'scheduler:set-aside': GroupEvent & { readonly count: number }
  'worker:started': GroupEvent
  'worker:draining': GroupEvent
  'worker:stopped': GroupEvent & { readonly handedBack: number; readonly unsettled: number }
  'group:restored': GroupEvent & { readonly floor: string }
  error: GroupEvent & { readonly error: Error }
}

export type EventName = keyof EventPayloads

export interface EventNote {
  /** When it occurs. */
  readonly when: string
  /** What it does not mean. */
  readonly not: string
  /** What it says beyond what the events of its kind do; empty if nothing. */
  readonly fields: string
}

export const EVENTS: Readonly<Record<EventName, EventNote>> = {
  'job:started': {
    when: 'A run begins: the handler is called next.',
    not: 'That it is the first run: `attempt` and `deliveries` tell.',
    fields: '',
  },
  'job:completed': {
    when: 'The handler succeeded and Redis has confirmed that the job is settled.',
    not:
      'That it ran once: a run before this one may have got as far as its side effects. Beside a `job:late` of the same batch, ' +
      'which of its jobs were completed is a guess.',
    fields: '',
  },
  'job:failed': {
    when: 'A run ended in an error: the handler threw, or its promise was rejected.',
    not:
      'That the job is over, or that it is dead: what became of it is told by `job:retried` or `job:dead`, once Redis has ' +
      'confirmed it.',
    fields: '`error`: what was thrown',
  },
  'job:retried': {
    when: 'A run failed and Redis has confirmed that the next one is scheduled.',
    not: 'That it runs at `dueMs`: when it is due it waits for a free slot, here or on another worker.',
    fields:
      '`error`: what was thrown; `delayMs`: how long it waits; `dueMs`: when it is due, in ms since the epoch by the clock ' +
      'of Redis as this worker knows it; `attempt` is the run that failed',
  },
  'job:waiting': {
    when: 'The job could not be run here or now, and Redis has confirmed that it comes back later, at no cost.',
    not: 'That anything failed, or that its handler was called: no attempt and no delivery is spent.',
    fields: '`why`: what it waits for; `delayMs` and `dueMs` as of `job:retried`',
  },
  'job:dead': {
    when: 'Redis has confirmed that the job is a dead letter of its group.',
    not: 'That it is gone, or that its handler ever ran: `reason` tells why, and it can be redriven while dead letters are kept.',
    fields: '`reason`: one of the dead reasons; `error`: what was thrown last, or what was wrong with it',
  },
  'job:cancelled': {
    when: 'Somebody cancelled the job, and Redis has confirmed that this worker settled it so.',
    not: 'That nothing of it was done: a run that was under way may have done any part of its work. One that completes is `job:completed`.',
    fields: '',
  },
  'job:late': {
    when: 'Completions arrived in Redis after their jobs had been settled elsewhere.',
    not: 'That anything is lost: these jobs ran more than once. Redis tells how many of a batch they are, not which.',
    fields: '`count`: how many',
  },
  'job:timed-out': {
    when: 'A run took longer than its timeout: its signal is aborted and its lease no longer renewed.',
    not: 'That the handler has stopped, or that the job is over: a run that completes all the same counts as completed.',
    fields: '`timeoutMs`: how long it could take',
  },
  'job:overdue': {
    when: 'A handler goes on although its signal is aborted, and still holds its slot.',
    not: 'That it will be ended: only the end of the process does that. The job may run on another worker meanwhile.',
    fields: '`ranMs`: how long it has been running',
  },
  'job:lease-lost': {
    when: 'Another worker owns a job that still runs here: its signal is aborted.',
    not: 'That the job failed: it runs on the other worker. A completion from here counts if it comes first.',
    fields: '',
  },
  'job:handed-back': {
    when: 'Redis has confirmed that the job was given back to its group: by a stop, or because it waited too long for a slot.',
    not:
      'That it failed: neither an attempt nor a delivery is spent. It may have begun to run here. A batch of which Redis did ' +
      'not take back every job is not told.',
    fields: '',
  },
  'scheduler:set-aside': {
    when: 'Scheduled jobs that were due could not be moved into their stream and were set aside.',
    not: 'That they are gone, or hold up others: they stay listed among the scheduled jobs and never become due by themselves.',
    fields: '`count`: how many',
  },
  'worker:started': {
    when: 'The worker has joined its group and begins to read.',
    not: 'That it has run anything, or goes on being well: `worker.health()` tells.',
    fields: '',
  },
  'worker:draining': {
    when: '`stop()` was called, or `run()` got a signal: no further job is begun.',
    not: 'That running jobs are cut short: they have `drainMs` to finish.',
    fields: '',
  },
  'worker:stopped': {
    when: 'The drain is over and the connections are closed. It is the last event of a worker.',
    not: 'That every job has an outcome: those that were handed back run elsewhere now, unsettled ones once their lease is over.',
    fields: '`handedBack`: jobs given back; `unsettled`: outcomes that Redis did not take in time',
  },
  'group:restored': {
    when: 'The group had vanished from Redis (`XGROUP DESTROY`, `DEL`, `FLUSHALL`, a failover) and was made again.',
    not: 'That all is as before: what was settled after `floor` runs again, and entries that are gone do not come back.',
    fields: '`floor`: the entry id after which the group reads on',
  },
  error: {
    when: 'Something failed that is no fault of a job, such as a command to Redis. It is logged too.',
    not: 'That the worker has stopped: it goes on trying. Nobody has to listen: without a listener nothing is thrown.',
    fields: '`error`: what failed',
  },
}
