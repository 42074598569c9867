import { monotonicMs } from '../clock.ts'
import { PublishError } from '../errors.ts'
import type { Batcher } from './batcher.ts'
import type { Outgoing, Settled } from './outgoing.ts'

/**
 * Publishes from an iterable in constant memory: takes from it only while fewer than two batches wait, so that one is always
 * ready and no more. Stops at the first failure, and waits for what is on its way before it tells.
 */
export interface ManyDeps<Data> {
  readonly batcher: Batcher
  /** @throws PublishError for a payload that cannot be published. */
  readonly pack: (data: Data) => Outgoing
  /** Resolves when something was answered, or soon. */
  readonly progressed: () => Promise<void>
  readonly isClosed: () => boolean
  /** Ends it as a close does. */
  readonly signal: AbortSignal | undefined
}

const AHEAD_JOBS = 1000
const AHEAD_BYTES = 4 * 1024 * 1024

/** Jobs that waited when nothing more was taken are sent first; then it is told how it went. */
export interface ManyDone {
  /** How many are certainly in Redis. */
  readonly confirmed: number
  /** How many of them have as many replicas as was asked for. */
  readonly replicated: number
  /** What ended it. */
  readonly failure: PublishError | undefined
  /** What cut it short. */
  readonly cut: 'close' | 'abort' | undefined
}

/** An error of the iterable is thrown as it is. */
export async function publishEach<Data>(
  items: Iterable<Data> | AsyncIterable<Data>,
  deps: ManyDeps<Data>,
): Promise<ManyDone> {
  const many = new Many(deps)
  try {
    if (Symbol.iterator in items) {
      for (const data of items) if (!(many.tryPush(data) || (await many.pushed()))) break
    } else {
      await fromAsync(items[Symbol.asyncIterator](), many)
    }
  } finally {
    await many.allAnswered()
    many.end()
  }
  return many.done
}

async function fromAsync<Data>(iterator: AsyncIterator<Data>, many: Many<Data>): Promise<void> {
  while (many.mayTake()) {
    // A source that yields nothing for long must not keep a failure from being told.
    const next = Promise.resolve(iterator.next())
    const taken = await new Promise<IteratorResult<Data> | undefined>((resolve, reject) => {
      many.onFailure = () => resolve(undefined)
      next.then(resolve, reject)
    })
    // All of it was taken: what is closed meanwhile cuts nothing short.
    if (taken?.done === true) return
    // Closed, or failed, while it was waited for: nobody would send it any more.
    if (taken === undefined || !many.mayTake()) break
    if (!(many.tryPush(taken.value) || (await many.pushed()))) break
  }
  // Not awaited: a generator answers only when what it waits for itself has come.
  if (!many.mayTake()) Promise.resolve(iterator.return?.()).catch(() => {})
}

class Many<Data> {
  readonly #deps: ManyDeps<Data>
  #confirmed = 0
  #replicated = 0
  #waiting = 0
  #failure: PublishError | undefined
  #cut: ManyDone['cut']
  /** One that is packed and has no room yet. */
  #next: Outgoing | undefined
  onFailure = () => {}
  readonly #onAbort = () => this.onFailure()

  constructor(deps: ManyDeps<Data>) {
    this.#deps = deps
    deps.signal?.addEventListener('abort', this.#onAbort)
  }

  /** A signal that outlives it must not collect what every publishMany has left. */
  end(): void {
    this.#deps.signal?.removeEventListener('abort', this.#onAbort)
  }

  get done(): ManyDone {
    return { confirmed: this.#confirmed, replicated: this.#replicated, failure: this.#failure, cut: this.#cut }
  }

  mayTake(): boolean {
    if (this.#failure !== undefined) return false
    if (this.#deps.isClosed()) this.#cut ??= 'close'
    if (this.#deps.signal?.aborted === true) this.#cut ??= 'abort'
    return this.#cut === undefined
  }

  /** Pushes it if there is room at once: most jobs cost no promise. */
  tryPush(data: Data): boolean {
    if (!this.mayTake()) return false
    try {
      const item = this.#deps.pack(data)
      item.settled = this.#settled
      this.#next = item
      // What is packed is code of the caller too, and may have closed the producer.
      if (!this.mayTake()) return false
      if (!this.#hasRoom(item)) return false
      this.#push(item)
      return true
    } catch (error) {
      if (!(error instanceof PublishError)) throw error
      this.#failure = error
      return false
    }
  }

  /**
   * Waits until what `tryPush` had no room for has some; false if nothing more is to be taken. As long as Redis takes batches
   * the time of the job has not begun: it only waits for its turn.
   */
  async pushed(): Promise<boolean> {
    const item = this.#next
    while (item !== undefined && this.mayTake()) {
      const nowMs = monotonicMs()
      const mostMs = item.deadlineMs - item.publishedAtMs
      if (this.#hasRoom(item)) {
        item.deadlineMs = nowMs + mostMs
        this.#push(item)
        return true
      }
      if (nowMs >= Math.max(item.publishedAtMs, this.#deps.batcher.tookAtMs) + mostMs) {
        item.numbers.rejected += 1
        this.#failure = this.#deps.batcher.late()
        return false
      }
      await this.#deps.progressed()
    }
    return false
  }

  async allAnswered(): Promise<void> {
    while (this.#waiting > 0) await this.#deps.progressed()
  }

  #hasRoom({ bytes }: Outgoing): boolean {
    const { buffer } = this.#deps.batcher
    if (buffer.jobs > 0 && (buffer.jobs >= AHEAD_JOBS || buffer.bytes + bytes > AHEAD_BYTES)) return false
    return buffer.hasRoom(bytes)
  }

  #push(item: Outgoing): void {
    this.#next = undefined
    this.#waiting += 1
    this.#deps.batcher.push(item)
  }

  readonly #settled: Settled = (answer, error, { replicas }, replicated) => {
    this.#waiting -= 1
    if (answer !== undefined) {
      this.#confirmed += 1
      if (replicas !== undefined && replicated >= replicas.replicas) this.#replicated += 1
      return
    }
    if (this.#failure === undefined || error?.published === 'unknown') this.#failure = error
    this.onFailure()
  }
}
