import { createRequire } from 'node:module'
import { availableParallelism, cpus, release, totalmem, type } from 'node:os'
import { findRedisServer } from '../cli/redis-server.ts'
import { type Peer, PEERS, peerVersions } from './peers.ts'

/** What a figure is worth nothing without. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGib: number
  readonly kernel: string
}

export function thisMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: `${type()} ${release()}`,
  }
}

/** Versions by what they are of. */
export async function versions(missing: ReadonlyMap<Peer, string>): Promise<Record<string, string>> {
  const require = createRequire(import.meta.url)
  const versionOf = (name: string) => (require(`${name}/package.json`) as { version: string }).version
  const known = {
    millrace: versionOf('millrace'),
    node: process.versions.node,
    redis: (await findRedisServer()).version,
    ioredis: versionOf('ioredis'),
  }
  const peers = PEERS.filter((peer) => !missing.has(peer)).map(peerVersions)
  return Object.assign({}, known, ...peers) as Record<string, string>
}
