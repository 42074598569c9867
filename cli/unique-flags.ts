import type { Command } from 'commander'
import type { UniqueOptions } from '../src/index.ts'
import { durationMs, parseDelay } from './duration.ts'
import { usageError, wrongValue } from './exit.ts'

/** The flags that say how a job is unique. */
export interface UniqueFlags {
  readonly uniqueKey?: string
  readonly uniqueScope?: UniqueOptions['scope']
  readonly uniqueMode?: string
  readonly uniqueGroup?: string
  readonly uniqueMaxWait?: number
}

const SCOPES = ['until-settled', 'until-started'] as const

export function addUniqueFlags(command: Command): Command {
  return command
    .option('--unique-key <key>', 'publish it only while no other job has this key')
    .option('--unique-scope <scope>', 'how long: until-settled (default), until-started, 10m', parseScope)
    .option('--unique-mode <mode>', 'reject (default), replace or debounce')
    .option('--unique-group <group>', 'the group that settles or starts it')
    .option('--unique-max-wait <duration>', 'put off at most so long', (text) =>
      parseDelay('--unique-max-wait', text, { minMs: 1 }),
    )
}

/** What a publish is given of it; what is wrong with its values is left for the publish to say. */
export function uniqueOf(flags: UniqueFlags): { uniqueKey: string; unique: UniqueOptions } | undefined {
  const { uniqueKey, uniqueScope: scope, uniqueMode, uniqueGroup: group, uniqueMaxWait: maxWaitMs } = flags
  const mode = uniqueMode as UniqueOptions['mode']
  const given = {
    ...(scope !== undefined && { scope }),
    ...(mode !== undefined && { mode }),
    ...(group !== undefined && { group }),
    ...(maxWaitMs !== undefined && { maxWaitMs }),
  }
  if (uniqueKey !== undefined) return { uniqueKey, unique: given }
  if (Object.keys(given).length > 0) throw usageError('expected a `--unique-key` with the other `--unique` flags')
  return undefined
}

function parseScope(text: string): UniqueOptions['scope'] {
  const word = SCOPES.find((scope) => scope === text)
  if (word !== undefined) return word
  const ttlMs = durationMs(text)
  if (ttlMs > 0) return { ttlMs }
  throw wrongValue('--unique-scope', 'until-settled, until-started or a duration such as 10m', text)
}
