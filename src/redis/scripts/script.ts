import { createHash } from 'node:crypto'
import type { Redis } from 'ioredis'
import { withoutArguments } from '../faults.ts'

/** One Lua script, known to Redis by its hash. */
export interface Script {
  readonly name: string
  readonly lua: string
  readonly sha: string
}

export type Argument = string | number | Buffer

export function script(name: string, lua: string): Script {
  return { name, lua, sha: createHash('sha1').update(lua).digest('hex') }
}

/**
 * Runs a script by its hash and, where the server does not know it yet (first use, restart, SCRIPT FLUSH), by its text.
 * NOSCRIPT means that nothing was executed, so the second try is never a second execution.
 */
export async function run(
  client: Redis,
  { sha, lua }: Script,
  keys: readonly string[],
  args: readonly Argument[],
): Promise<unknown> {
  try {
    return await client.evalsha(sha, keys.length, ...keys, ...args)
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('NOSCRIPT')) return runText(client, { lua }, keys, args)
    throw withoutArguments(error)
  }
}

/** The same by its text alone: what is sent next on this connection comes after it, also where the server does not know the script. */
export async function runText(
  client: Redis,
  { lua }: Pick<Script, 'lua'>,
  keys: readonly string[],
  args: readonly Argument[],
): Promise<unknown> {
  return client.eval(lua, keys.length, ...keys, ...args).catch((error: unknown) => {
    throw withoutArguments(error)
  })
}
