import { randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Inspector, removeStream } from '../../src/index.ts'
import { openRedis, type PrivateRedis } from '../redis-server.ts'
import { redact } from '../redis-url.ts'

/** Where the demo works: a Redis, a stream of its own in it, and a folder for what the workers write down. */
export interface Place {
  readonly url: string
  /** For people: which Redis this is. */
  readonly origin: string
  readonly stream: string
  readonly results: string
  /** Folders that are ours: no input for the demo. */
  readonly folders: readonly string[]
  /** Leaves nothing behind; what cannot be removed is told. */
  close(): Promise<void>
  /** The same for a process that ends now: what can be removed at once. */
  abandon(): void
}

/** @param given the user's Redis; without one a private server is started. */
export async function openPlace(given: string | undefined, say: (line: string) => void): Promise<Place> {
  const server = given === undefined ? await openRedis({ say }) : await reach(given)
  // The folder of a private server is removed with it, even if we are killed.
  const { dir } = server
  const results = dir === undefined ? await mkdtemp(join(tmpdir(), 'millrace-demo-')) : join(dir, 'results')
  await mkdir(results, { recursive: true })
  const stream = `millrace-demo-${randomBytes(4).toString('hex')}`
  return {
    url: server.url,
    origin: server.origin,
    stream,
    results,
    folders: dir === undefined ? [results] : [dir, results],
    async close() {
      if (server.pid === undefined) {
        await removeStream({ redis: server.url }, stream).catch((error: Error) => {
          say(`the keys of stream ${stream} are left in Redis: ${error.message}`)
        })
      }
      await server.stop()
      await rm(results, { recursive: true, force: true })
    },
    abandon: () => rmSync(results, { recursive: true, force: true }),
  }
}

/** The user's Redis, once it has answered: nothing is begun on one that is not there. */
async function reach(url: string): Promise<PrivateRedis> {
  const inspector = new Inspector({ redis: url, logger: false })
  try {
    await inspector.streams()
    return { url, origin: redact(url, url), stop: async () => {} }
  } finally {
    inspector.close()
  }
}
