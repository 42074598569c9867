import { Wait, GenericContainer } from 'testcontainers'

/** Which containers a test run is to use; given by test/helpers/containers.ts to the test files. */
export interface ContainersInUse {
  readonly image: string
  /** Marks what this run has started. */
  readonly run: string
}

export interface RedisInContainer {
  readonly url: string
  readonly origin: string
  /** What `redis-server --version` says there. */
  readonly version: string
  stop(): Promise<void>
}

export const RUN_LABEL = 'millrace.test-run'

const REDIS_PORT = 6379

/** A Redis in a container, with nothing persisted unless the arguments say so. */
export async function startRedisContainer(use: ContainersInUse, args: readonly string[]): Promise<RedisInContainer> {
  const container = await new GenericContainer(use.image)
    .withCommand(['redis-server', '--save', '', '--appendonly', 'no', ...args])
    .withExposedPorts(REDIS_PORT)
    .withLabels({ [RUN_LABEL]: use.run })
    // Not by looking for the port: that needs tools which small images lack.
    .withWaitStrategy(Wait.forLogMessage(/Ready to accept connections/))
    .start()
  const { output } = await container.exec(['redis-server', '--version'])
  const version = /v=(\S+)/.exec(output)?.[1] ?? 'of unknown version'
  return {
    url: `redis://${container.getHost()}:${container.getMappedPort(REDIS_PORT)}`,
    origin: `redis-server ${version} in a container of ${use.image}`,
    version,
    stop: async () => void (await container.stop()),
  }
}
