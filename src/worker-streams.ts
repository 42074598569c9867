import { OptionError } from './errors.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { checkStreamName } from './redis/keys.ts'

/** One stream of a worker that works on several. */
export interface WorkerStream {
  /** Its name. */
  stream: string
  /** Its share of the starts while other streams have work too: 3 beside a 1 is three of four. Up to 1000. @default 1 */
  weight?: number
  /** Most slots that its jobs take at once. @default the worker's `concurrency` */
  concurrency?: number
}

/** `weighted`: each has its share, by weight, and none starves. `strict`: a stream goes before all behind it. */
export type StreamPriority = 'weighted' | 'strict'

/** The same with every default in place. */
export interface ResolvedStream {
  readonly stream: string
  readonly weight: number
  readonly concurrency: number
}

export const STREAMS_MOST = 64
export const WEIGHT_MOST = 1000

/** What a worker is to work on. @throws OptionError */
export function resolveStreams(
  given: { stream?: unknown; streams?: unknown; priority?: unknown },
  concurrency: number,
): { streams: readonly [ResolvedStream, ...ResolvedStream[]]; priority: StreamPriority } {
  const { stream, streams } = given
  const priority = oneOf('priority', given.priority, ['weighted', 'strict'])
  if (streams === undefined) {
    if (priority !== undefined)
      throw new OptionError('expected `streams` beside `priority`: of one stream none goes first')
    return { streams: [{ stream: checkStreamName(stream), weight: 1, concurrency }], priority: 'weighted' }
  }
  if (stream !== undefined) throw new OptionError('expected either `stream` or `streams`: both say what to work on')
  if (!Array.isArray(streams) || streams.length === 0 || streams.length > STREAMS_MOST) {
    const got = Array.isArray(streams) ? `${streams.length} of them` : shown(streams)
    throw new OptionError(`expected \`streams\` to be a list of 1 to ${STREAMS_MOST} streams, got ${got}`)
  }
  const [first, ...others] = streams.map((one: unknown, at) => resolveStream(one, `streams[${at}]`, concurrency))
  if (first === undefined) throw new OptionError('expected `streams` to name a stream, got none')
  const resolved = [first, ...others] as const
  const names = new Set<string>()
  for (const { stream: name } of resolved) {
    if (names.has(name))
      throw new OptionError(`expected \`streams\` to name each stream once, got ${shown(name)} twice`)
    names.add(name)
  }
  return { streams: [...resolved], priority: priority ?? 'weighted' }
}

function resolveStream(given: unknown, where: string, most: number): ResolvedStream {
  if (typeof given === 'string') return { stream: checkStreamName(given), weight: 1, concurrency: most }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new OptionError(`expected \`${where}\` to be a stream's name, or an object with it, got ${shown(given)}`)
  }
  refuseUnknownKeys(where, given, ['stream', 'weight', 'concurrency'])
  const { stream, weight, concurrency } = given as { stream?: unknown; weight?: unknown; concurrency?: unknown }
  return {
    stream: checkStreamName(stream),
    weight: wholeNumber(`${where}.weight`, weight, { or: 1, max: WEIGHT_MOST }),
    // More than the worker has would be no bound, and who writes it means one.
    concurrency: wholeNumber(`${where}.concurrency`, concurrency, { or: most, max: most }),
  }
}
