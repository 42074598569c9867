import { Option, type Command } from 'commander'
import type { StreamPriority, WorkerOptions } from '../src/index.ts'
import { usageError } from './exit.ts'
import { parseCount } from './whole-number.ts'

/** Which streams a pool works on, and which of them goes first. */

export interface StreamFlags {
  readonly stream: readonly string[]
  readonly weight?: readonly StreamWeight[]
  readonly priority?: StreamPriority
}

interface StreamWeight {
  readonly stream: string
  readonly weight: number
}

export function addStreamFlags(command: Command): Command {
  return command
    .requiredOption('--stream <name>', 'the stream to work on; may be repeated', (name, before: string[] = []) => [
      ...before,
      name,
    ])
    .option('--weight <stream=count>', 'its share of the starts beside other streams (default: 1)', addWeight)
    .addOption(
      new Option(
        '--priority <how>',
        'of several streams: each by its weight, or in strict order (default: weighted)',
      ).choices(['weighted', 'strict']),
    )
}

/** What the worker is told of them. One stream is told as one: it may be the only one of two names. */
export function streamOptions({
  stream,
  weight = [],
  priority,
}: StreamFlags): Pick<WorkerOptions, 'stream' | 'streams' | 'priority'> {
  const streams = [...stream]
  const twice = streams.find((name, at) => streams.indexOf(name) !== at)
  if (twice !== undefined) throw usageError(`expected each \`--stream\` to name another one, got ${twice} twice`)
  const weights = new Map<string, number>()
  for (const one of weight) {
    if (!streams.includes(one.stream))
      throw usageError(`\`--weight\` speaks of ${one.stream}, which no \`--stream\` names`)
    if (weights.has(one.stream)) throw usageError(`\`--weight\` is given twice for ${one.stream}`)
    weights.set(one.stream, one.weight)
  }
  const [only, ...others] = streams
  if (only !== undefined && others.length === 0) {
    if (priority !== undefined || weights.size > 0) {
      throw usageError('`--weight` and `--priority` are for several streams: repeat `--stream`')
    }
    return { stream: only }
  }
  return {
    streams: streams.map((name) => {
      const own = weights.get(name)
      return own === undefined ? name : { stream: name, weight: own }
    }),
    ...(priority === undefined ? {} : { priority }),
  }
}

function addWeight(text: string, before: readonly StreamWeight[] = []): StreamWeight[] {
  const at = text.lastIndexOf('=')
  if (at <= 0) throw usageError(`expected \`--weight\` to be a stream and its weight, as in orders=3, got ${text}`)
  const weight = parseCount('--weight', text.slice(at + 1), { most: 1000 })
  return [...before, { stream: text.slice(0, at), weight }]
}
