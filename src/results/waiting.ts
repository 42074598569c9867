import { OptionError, ResultError } from '../errors.ts'
import { whenAborted } from '../when-aborted.ts'
import type { Answer } from './answer.ts'
import { resultIn, type OfJob } from './told.ts'

/** One wait for the result of a job, from when it is asked for until it is told, or nobody waits any more. */
export interface ResultWait extends OfJob {
  readonly group: string | undefined
  /** Whether the job is known to have been published with `result`. */
  readonly isKnown: boolean
  /**
   * Whether the first reply that comes is its answer. Else that may have come and gone, and this one be of a group that ended the job
   * later.
   */
  readonly isTold: boolean
  readonly settle: (answer: Answer) => void
  readonly fail: (error: unknown) => void
}

/** Waits for one result. `begin` is given the wait, and gives what ends it for whoever else knows of it. */
export function waitFor(
  about: Omit<ResultWait, 'settle' | 'fail'>,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal | undefined },
  begin: (wait: ResultWait) => () => void,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(aborted(about, signal))
    const over = () => {
      clearTimeout(timer)
      forgetSignal?.()
      leave()
    }
    const settle = (answer: Answer) => {
      over()
      try {
        resolve(resultIn(answer, about))
      } catch (error) {
        reject(error instanceof ResultError ? error : new OptionError(String(error)))
      }
    }
    const fail = (error: unknown) => {
      over()
      reject(error instanceof Error ? error : new Error(String(error)))
    }
    const timer = setTimeout(() => fail(timedOut(about, timeoutMs)), timeoutMs)
    const forgetSignal = signal && whenAborted(signal, () => fail(aborted(about, signal)))
    const leave = begin({ ...about, settle, fail })
  })
}

export function notAsked({ stream, jobId, group }: OfJob & { readonly group: string | undefined }): ResultError {
  const text =
    `expected a job that was published with \`result\`; job ${jobId} on ${stream} was there already, ` +
    `and nobody is told how it ends${group === undefined ? '' : ` in group ${group}`}`
  return new ResultError('ERR_RESULT_NOT_ASKED', text, { stream, jobId, group })
}

export function closedWhileWaiting({ stream, jobId }: OfJob): ResultError {
  const text = `the producer was closed while the result of job ${jobId} on ${stream} was awaited; the job goes on`
  return new ResultError('ERR_PRODUCER_CLOSED', text, { stream, jobId })
}

function timedOut({ stream, jobId }: OfJob, timeoutMs: number): ResultError {
  const text =
    `job ${jobId} on ${stream} had no result within ${timeoutMs} ms; it may still run: ask again, ` +
    'or look where it is with explain'
  return new ResultError('ERR_RESULT_TIMEOUT', text, { stream, jobId })
}

function aborted({ stream, jobId }: OfJob, signal: AbortSignal | undefined): ResultError {
  const text = `the wait for the result of job ${jobId} on ${stream} was aborted; the job goes on`
  return new ResultError('ERR_RESULT_ABORTED', text, { stream, jobId, cause: signal?.reason })
}
