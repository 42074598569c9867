import { Redis, type RedisOptions } from 'ioredis'
import { beforeAll, beforeEach, inject } from 'vitest'
import { openRedis, type PrivateRedis } from '../../cli/redis-server.ts'
import { onEnd } from './cleanup.ts'
import { type ControlledServer, type ControlledServerOptions, openServer } from './controlled-server.ts'

export type { ControlledServer, ControlledServerOptions } from './controlled-server.ts'

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

/** Always private and local; it ends with the test. */
export async function startServer(options: ControlledServerOptions = {}): Promise<ControlledServer> {
  const server = await openServer(options)
  onEnd(() => server.remove())
  return server
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
