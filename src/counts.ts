/** What a worker has done since it started: plain numbers, added to on the hot path and read when somebody looks. */
export interface WorkerCounts {
  /** Entries read from the stream and the redelivery stream. */
  delivered: number
  /** Those of them that were in the redelivery stream. */
  redelivered: number
  /** Entries taken over from workers that went away or handed them back. */
  claimed: number
  completed: number
  /** Runs whose handler failed. */
  failed: number
  /** Failed attempts after which the job was scheduled for another one. */
  retried: number
  /** Deliveries that were put off at no cost, as the job could not run here or now. */
  waited: number
  cancelled: number
  /** Jobs that the group does not want, settled without a run. */
  skipped: number
  timedOut: number
  dead: number
  /** Completions of jobs that were settled already: they ran twice. */
  late: number
  /** Runs that were told to stop because another worker owns the job. */
  leaseLost: number
  handedBack: number
  /** Pending entries that had been deleted from the stream. */
  gone: number
  claimPasses: number
  trimmed: number
  /** Dead letters past their age that were removed. */
  discarded: number
  /** Delayed publishes and retries that became due and were moved to where they run. */
  promoted: number
  /** Scheduled jobs that could not be moved and were set aside. */
  setAside: number
  /** Jobs that recurring schedules have published here. */
  cronFired: number
  /** Ticks of theirs that were left out, as the job of the one before had not ended. */
  cronSkipped: number
}

export function newCounts(): WorkerCounts {
  return {
    delivered: 0,
    redelivered: 0,
    claimed: 0,
    completed: 0,
    failed: 0,
    retried: 0,
    waited: 0,
    cancelled: 0,
    skipped: 0,
    timedOut: 0,
    dead: 0,
    late: 0,
    leaseLost: 0,
    handedBack: 0,
    gone: 0,
    claimPasses: 0,
    trimmed: 0,
    discarded: 0,
    promoted: 0,
    setAside: 0,
    cronFired: 0,
    cronSkipped: 0,
  }
}
