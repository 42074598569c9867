import { Redis, type RedisOptions } from 'ioredis'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, beforeEach, inject } from 'vitest'
import { openRedis, type PrivateRedis, startRedis } from '../../cli/redis-server.ts'
import { onEnd } from './cleanup.ts'

const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** The Redis of a test file. */
export interface FileRedis {
  /** Known from `beforeAll` on. */
  readonly url: string
  readonly origin: string
  /** A client for arranging and asserting; closed at the end of the file. */
  readonly client: Redis
  /** Another client, closed at the end of the test. */
  connect(options?: RedisOptions): Redis
  /** Empties it; done before every test anyway. */
  flush(): Promise<void>
}

/**
 * Gives the test file that calls it a Redis of its own, emptied before every test: a local process, or a container if the
 * run is one with containers. Where MILLRACE_TEST_REDIS_URL names a shared one, files that run at the same time use
 * different databases of it.
 */
export function withRedis(options: { args?: readonly string[] } = {}): FileRedis {
  let server: PrivateRedis | undefined
  let client: Redis | undefined
  beforeAll(async () => {
    const opened = await openForFile(options.args ?? [])
    onEnd(() => opened.stop())
    server = opened
    client = connectTo(server.url)
  })
  beforeEach(() => file.flush())
  const file: FileRedis = {
    get url() {
      return started(server).url
    },
    get origin() {
      return started(server).origin
    },
    get client() {
      return started(client)
    },
    connect: (clientOptions) => connectTo(started(server).url, clientOptions),
    async flush() {
      await started(client).flushdb()
    },
  }
  return file
}

/** An ordinary client that survives outages quietly; closed at the end of the test. */
export function connectTo(url: string, options: RedisOptions = {}): Redis {
  const client = new Redis(url, { ...options, replyMapping: 'legacy' })
  client.on('error', () => {}) // expected where a test takes Redis away
  onEnd(() => client.disconnect())
  return client
}

/** The server's clock, which is not this one where Redis is in a container. */
export async function serverMs(client: Redis): Promise<number> {
  const [seconds, micros] = await client.time()
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}

/** A Redis process that a test may stop, kill and start again. Always private and local. */
export interface ControlledServer {
  readonly url: string
  readonly port: number
  readonly pid: number
  /** SIGSTOP: connections stay open, nothing is answered. */
  stopProcess(): void
  /** SIGCONT. */
  continueProcess(): void
  /** SIGKILL; resolves when it is gone. With `aof`, what it has answered is on disk. */
  kill(): Promise<void>
  /** Starts it on the same port and directory, after an orderly shutdown if it still runs. */
  restart(): Promise<void>
  stop(): Promise<void>
}

export interface ControlledServerOptions {
  /** Append-only file with an fsync for every write. @default false */
  aof?: boolean
  /** Further arguments of redis-server. */
  args?: readonly string[]
}

export async function startServer(options: ControlledServerOptions = {}): Promise<ControlledServer> {
  const dir = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  const aof = options.aof === true ? ['--appendonly', 'yes', '--appendfsync', 'always'] : []
  const args = [...aof, ...(options.args ?? [])]
  let running = await startRedis({ args, dir, say })
  const port = Number(new URL(running.url).port)
  const signal = (name: NodeJS.Signals): void => void process.kill(started(running.pid), name)
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
  onEnd(async () => {
    await end('SIGKILL')
    await rm(dir, { recursive: true, force: true })
  })
  return {
    url: running.url,
    port,
    get pid() {
      return started(running.pid)
    },
    stopProcess: () => signal('SIGSTOP'),
    continueProcess: () => signal('SIGCONT'),
    kill: () => end('SIGKILL'),
    async restart() {
      await end('SIGTERM')
      running = await startRedis({ args, dir, port, say })
    },
    stop: () => end('SIGKILL'),
  }
}

async function openForFile(args: readonly string[]): Promise<PrivateRedis> {
  const containers = inject('redisContainers')
  if (containers !== undefined) {
    // Only then, because loading it takes as long as many a test file.
    const { startRedisContainer } = await import('./redis-container.ts')
    return startRedisContainer(containers, args)
  }
  const opened = await openRedis({ args, say })
  return opened.pid === undefined ? { ...opened, url: databaseOfThisRunner(opened.url) } : opened
}

function databaseOfThisRunner(url: string): string {
  const own = new URL(url)
  own.pathname = `/${process.env['VITEST_POOL_ID'] ?? '0'}`
  return own.href
}

function started<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('not started yet: use it in a test or a hook, not while the file is read')
  return value
}
