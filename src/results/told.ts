import { ResultError } from '../errors.ts'
import type { Answer } from './answer.ts'

/** What an answer is to whoever waits for it: the result, or an error that says why there is none. Pure. */

export interface OfJob {
  readonly stream: string
  readonly jobId: string
}

/** @throws ResultError */
export function resultIn({ state, group, body = '' }: Answer, { stream, jobId }: OfJob): unknown {
  const about = { stream, jobId, group: group ?? undefined }
  const job = `job ${jobId} on ${stream}`
  switch (state) {
    case 'completed':
      return body === '' ? undefined : parsed(body, job, about)
    case 'dead': {
      const { reason, attempts, error, message } = whyOf(body)
      const text = `${job} is dead (${reason}) after ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'}: ${error}: ${message}`
      throw new ResultError('ERR_RESULT_FAILED', text, { ...about, reason, attempts })
    }
    case 'cancelled':
      throw new ResultError('ERR_RESULT_CANCELLED', `${job} was cancelled, or gave way to another one`, about)
    case 'skipped':
      throw new ResultError('ERR_RESULT_SKIPPED', `${job} was skipped: group ${group ?? ''} does not want it`, about)
    case 'too-large': {
      const why = `${job} is completed, but its result was over the worker's maxResultBytes; give back where it is`
      throw new ResultError('ERR_RESULT_TOO_LARGE', why, about)
    }
    case 'not-json': {
      const why = `${job} is completed, but what its handler gave back has no JSON`
      throw new ResultError('ERR_RESULT_NOT_JSON', why, about)
    }
  }
}

/** What is said of a dead job: of hostile bytes at most a text. */
export function whyOf(body: string): { reason: string; attempts: number; error: string; message: string } {
  let said: Partial<Record<string, unknown>> = {}
  try {
    const read: unknown = JSON.parse(body)
    if (typeof read === 'object' && read !== null) said = read
  } catch {
    // Nothing is known then but that it is dead.
  }
  const text = (name: string) => (typeof said[name] === 'string' ? said[name] : '')
  const attempts = typeof said['attempts'] === 'number' ? said['attempts'] : 0
  return { reason: text('reason'), attempts, error: text('error'), message: text('message') }
}

function parsed(json: string, job: string, about: ConstructorParameters<typeof ResultError>[2]): unknown {
  try {
    return JSON.parse(json)
  } catch (cause) {
    throw new ResultError('ERR_RESULT_NOT_JSON', `the result of ${job} is no JSON: somebody has changed it`, {
      ...about,
      cause,
    })
  }
}
