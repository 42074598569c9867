import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { messageOf } from '../src/errors.ts'
import type { ContenderName } from './contenders/contender.ts'

/**
 * The other systems. They are dependencies of the folder `bench/` alone, installed when the benchmark first runs; where
 * that is not possible, the rest is measured without them.
 */
export const PEERS = ['bullmq', 'bee-queue'] as const satisfies readonly ContenderName[]
export type Peer = (typeof PEERS)[number]

/** This file runs from dist/bench. */
const FOLDER = new URL('../../bench/', import.meta.url)
const require = createRequire(new URL('package.json', FOLDER))

export async function loadPeer(peer: Peer): Promise<unknown> {
  return require(peer) as unknown
}

/** Without a registry npm goes on trying for a long time. */
const INSTALL_MS = 120_000

/** Installs the peers if they are not there. */
export async function installPeers(say: (line: string) => void, signal: AbortSignal): Promise<void> {
  if (existsSync(new URL('node_modules/', FOLDER))) return
  say('installing what millrace is compared with: npm ci --prefix bench')
  const args = ['ci', '--prefix', fileURLToPath(FOLDER), '--no-audit', '--no-fund']
  try {
    await promisify(execFile)('npm', args, { signal, timeout: INSTALL_MS, shell: process.platform === 'win32' })
  } catch (error) {
    signal.throwIfAborted()
    say(`they could not be installed: ${messageOf(error).split('\n').slice(0, 4).join(' ')}`)
  }
}

/** Which peers are missing, with the reason; they are said, and the rest is measured. */
export async function missingPeers(without: readonly Peer[]): Promise<Map<Peer, string>> {
  const missing = new Map<Peer, string>()
  for (const peer of PEERS) {
    if (without.includes(peer)) missing.set(peer, 'left out by --without')
    else {
      try {
        await loadPeer(peer)
        // Of an installation that was cut off only a part may be there.
        peerVersions(peer)
      } catch (error) {
        missing.set(peer, `cannot be loaded: ${messageOf(error).split('\n')[0] ?? ''}`)
      }
    }
  }
  return missing
}

/** The versions of a peer and of the client that it brings, or finds, to speak to Redis with. */
export function peerVersions(peer: Peer): Record<string, string> {
  const client = CLIENTS[peer]
  const { version } = JSON.parse(readFileSync(new URL(`node_modules/${peer}/package.json`, FOLDER), 'utf8')) as Package
  const clientPackage = createRequire(require.resolve(peer))(`${client}/package.json`) as Package
  return { [peer]: version, [`${client} of ${peer}`]: clientPackage.version }
}

interface Package {
  readonly version: string
}

const CLIENTS: Readonly<Record<Peer, string>> = { bullmq: 'ioredis', 'bee-queue': 'redis' }
