import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { type PrivateRedis, startRedis } from '../../cli/redis-server.ts'
import { waitFor } from './eventually.ts'

const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** A Redis process that a test may stop, kill and start again. Always private and local. */
export interface ControlledServer {
  readonly url: string
  readonly port: number
  readonly pid: number
  /** Where it keeps its data. */
  readonly dir: string
  /** SIGSTOP: connections stay open, nothing is answered. */
  stopProcess(): void
  /** SIGCONT. */
  continueProcess(): void
  /** SIGKILL; resolves when it is gone. With `aof`, what it has answered is on disk. */
  kill(): Promise<void>
  /**
   * Starts it on the same port and directory, after an orderly shutdown if it still runs; `more` arguments for this run alone.
   * A torn append-only file is written anew, as docs/deploy.md says.
   */
  restart(more?: readonly string[]): Promise<void>
  stop(): Promise<void>
  /** The same, and its directory goes too. */
  remove(): Promise<void>
}

export interface ControlledServerOptions {
  /** Append-only file with an fsync for every write. @default false */
  aof?: boolean
  /** Further arguments of redis-server. */
  args?: readonly string[]
}

export async function openServer(options: ControlledServerOptions = {}): Promise<ControlledServer> {
  const dir = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  const aof = options.aof === true ? ['--appendonly', 'yes', '--appendfsync', 'always'] : []
  const args = [...aof, ...(options.args ?? [])]
  let running = await startRedis({ args, dir, say })
  const port = Number(new URL(running.url).port)
  const signal = (name: NodeJS.Signals): void => void process.kill(pidOf(running), name)
  const end = async (name: NodeJS.Signals): Promise<void> => {
    try {
      signal(name)
      // A stopped process does not see the signal before it goes on.
      signal('SIGCONT')
    } catch {
      // gone already
    }
    await running.stop()
  }
  return {
    url: running.url,
    port,
    dir,
    get pid() {
      return pidOf(running)
    },
    stopProcess: () => signal('SIGSTOP'),
    continueProcess: () => signal('SIGCONT'),
    kill: () => end('SIGKILL'),
    async restart(more = []) {
      await end('SIGTERM')
      running = await startRedis({ args: [...args, ...more], dir, port, say })
      if (/Truncating the AOF/.test(await readFile(join(dir, 'server.log'), 'utf8'))) await rewriteAof(running.url)
    },
    stop: () => end('SIGKILL'),
    async remove() {
      await end('SIGKILL')
      await rm(dir, { recursive: true, force: true })
    },
  }
}

async function rewriteAof(url: string): Promise<void> {
  const client = new Redis(url, { replyMapping: 'legacy' })
  try {
    await client.bgrewriteaof()
    await waitFor(async () => /aof_rewrite_in_progress:0\r/.test(await client.info('persistence')))
  } finally {
    client.disconnect()
  }
}

/** Never 0, which would be our own process group. */
function pidOf({ pid }: PrivateRedis): number {
  if (pid === undefined) throw new Error('expected a private Redis to have a process id')
  return pid
}
