/** How the jobs of a handler are gathered, and what is called with them. */
export interface BatchTerms {
  /** Most jobs of a batch. */
  readonly size: number
  /** How long a job waits at most for others, in ms. */
  readonly lingerMs: number
  /** Called with the items of a batch. */
  readonly call: (batch: readonly never[], run: BatchRun) => unknown
}

/** What a function is told of its batch as a whole. */
export interface BatchRun {
  /** Aborts once nothing can come of the batch: the signal of every item that is still open has aborted. Its reason is one of theirs. */
  readonly signal: AbortSignal
}
