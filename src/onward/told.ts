import { publishChannel, type PublishMessage } from '../channels.ts'
import type { PublishError } from '../errors.ts'
import type { ItemFate } from '../redis/publishing.ts'
import type { ContainedPublish } from '../tracing.ts'

/**
 * Who is told what becomes of one call of `job.publish`: its span, and the channel `tracing:millrace:publish`. Told once: what went
 * to another slot is there, also where the ack behind it comes too late.
 */
export class Told {
  readonly #traced: ContainedPublish | undefined
  readonly #call: ChannelCall | undefined
  #isOver = false

  constructor(traced: ContainedPublish | undefined, call: ChannelCall | undefined) {
    this.#traced = traced
    this.#call = call
  }

  /** It is in Redis; `fate` is undefined where the answer was lost, and only that is known. */
  published(fate: ItemFate | undefined): void {
    if (!this.#begins()) return
    this.#traced?.end({ published: 1, id: fate?.id })
    this.#call?.resolve(fate ?? { outcome: 'added' })
  }

  /** It is not, and its run has failed for that. */
  refused(error: PublishError): void {
    if (!this.#begins()) return
    this.#traced?.end({ published: 0, error })
    this.#call?.reject(error)
  }

  /** It is not, since its run has not completed. */
  dropped(): void {
    if (!this.#begins()) return
    this.#traced?.end({ published: 0 })
    this.#call?.resolve(undefined)
  }

  #begins(): boolean {
    const begins = !this.#isOver
    this.#isOver = true
    return begins
  }
}

/** A call that the channel was told of, and is to be told the end of. */
export interface ChannelCall {
  readonly resolve: (result: Partial<ItemFate> | undefined) => void
  readonly reject: (error: PublishError) => void
}

/** Tells the channel of a call, and of the error if it throws, which the caller gets as well. */
export function onChannel(message: PublishMessage, publish: (call: ChannelCall) => void): void {
  const traced = publishChannel.tracePromise(() => {
    let call: ChannelCall | undefined
    const ended = new Promise<Partial<ItemFate> | undefined>((resolve, reject) => (call = { resolve, reject }))
    if (call !== undefined) publish(call)
    return ended
  }, message)
  // It is the channel's: the run hears of it by its own end.
  traced.catch(() => {})
}
