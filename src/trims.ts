import type { Asking } from './asking.ts'
import { existingStream } from './existing.ts'
import { refuseUnknownKeys, wholeNumber } from './options.ts'
import { checkStreamName } from './redis/keys.ts'
import { readTrim, retainStep, type Bounds } from './redis/trimming.ts'
import { planOf, type TrimPlan } from './trim-plan.ts'
import { DEFAULT_RETENTION, TRIM_STEP } from './trimmer.ts'

export interface TrimOptions {
  /** Remove what the plan says; else nothing is removed. @default false */
  execute?: boolean
  /** Count before the stream's settings, for this trim; 0 keeps nothing that is settled. */
  maxAgeMs?: number
  maxBytes?: number
  maxEntries?: number
  /** Ends the trim between two steps; what was removed until then stays removed. */
  signal?: AbortSignal
  /** Called after every step, with how many entries were removed so far. */
  onProgress?: (removed: number) => void
}

/** The plan as it was before anything was removed, and what was. */
export interface TrimResult extends TrimPlan {
  readonly isExecuted: boolean
  /** Whether the signal ended it before it was done. */
  readonly isInterrupted: boolean
  readonly removed: number
}

/** Trims a stream now, in bounded steps, by the same script as the workers. */
export async function trimStream(asking: Asking, stream: string, options: TrimOptions = {}): Promise<TrimResult> {
  checkStreamName(stream)
  const retaining = { forced: checkBounds(options), defaults: DEFAULT_RETENTION }
  const plan = await asking.run(`the retention of ${stream}`, async (client) => {
    await existingStream(client, stream)
    return planOf(stream, await readTrim(client, stream, retaining))
  })
  const { signal, onProgress } = options
  let removed = 0
  let more = options.execute === true
  while (more && signal?.aborted !== true) {
    const step = await asking.run(`a trim of ${stream}`, (client) =>
      retainStep(client, stream, { ...retaining, limit: TRIM_STEP }),
    )
    removed += step.removed
    more = step.more
    onProgress?.(removed)
  }
  return { ...plan, isExecuted: options.execute === true, isInterrupted: more, removed }
}

function checkBounds(options: TrimOptions): Bounds {
  refuseUnknownKeys('trim', options, ['execute', 'maxAgeMs', 'maxBytes', 'maxEntries', 'signal', 'onProgress'])
  const forced: Record<string, number> = {}
  for (const name of ['maxAgeMs', 'maxBytes', 'maxEntries'] as const) {
    if (options[name] !== undefined) forced[name] = wholeNumber(name, options[name], { or: 0, min: 0, max: 1e15 - 1 })
  }
  return forced
}
