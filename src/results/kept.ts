import type { Answer } from './answer.ts'

/** Answers that came before anybody waited for them: the newest ones. What is forgotten is looked up in Redis. */
export class KeptAnswers {
  readonly #byJob = new Map<string, Answer>()
  readonly #most: { readonly answers: number; readonly bytes: number }
  #bytes = 0
  /** How many were forgotten. */
  forgotten = 0

  constructor(most = { answers: 2000, bytes: 2 * 1024 * 1024 }) {
    this.#most = most
  }

  get(job: string): Answer | undefined {
    return this.#byJob.get(job)
  }

  /** The first group that answers counts; one that has the job again, after a redrive, answers anew. */
  add(job: string, answer: Answer): void {
    const known = this.#byJob.get(job)
    if (known !== undefined && known.group !== answer.group) return
    this.delete(job)
    this.#byJob.set(job, answer)
    this.#bytes += sizeOf(answer)
    for (const oldest of this.#byJob.keys()) {
      if (this.#byJob.size <= this.#most.answers && this.#bytes <= this.#most.bytes) break
      this.delete(oldest)
      this.forgotten += 1
    }
  }

  delete(job: string): void {
    const known = this.#byJob.get(job)
    if (known === undefined) return
    this.#byJob.delete(job)
    this.#bytes -= sizeOf(known)
  }
}

function sizeOf({ body = '' }: Answer): number {
  return 100 + body.length
}
