/**
 * Before and after a test run with containers: looks for a Docker engine, fetches the image, and tells test files to use
 * it. Without an engine nothing runs: a local server in its place would make the result say what it does not mean.
 *
 * Each test file has a container of its own, as it has a process of its own otherwise: files may then change settings,
 * flush scripts and count commands. Tests that signal, kill or restart Redis keep to a local process; a container shows
 * neither its process nor its directory.
 */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { type ContainerRuntimeClient, getContainerRuntimeClient, ImageName } from 'testcontainers'
import type { TestProject } from 'vitest/node'
import { type ContainersInUse, RUN_LABEL, startRedisContainer } from './redis-container.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    redisContainers: ContainersInUse | undefined
  }
}

/** Redis 7 and not 8: the newest release that millrace is known to work with. */
const DEFAULT_IMAGE = 'redis:7-alpine'

/** What a run has left that was killed before it could remove it. */
const FORGOTTEN_AFTER_S = 3600

type Labels = Record<string, string | undefined>

const run = randomUUID()

export async function setup(project: TestProject): Promise<void> {
  const image = process.env['MILLRACE_TEST_IMAGE'] || DEFAULT_IMAGE
  const engine = await findEngine()
  await fetchImage(engine, image)
  await removeWhere(({ Created }) => Date.now() / 1000 - Created > FORGOTTEN_AFTER_S)
  // The first one here, not in the files: what hinders it is then told once.
  const trial = await startRedisContainer({ image, run }, []).catch(async (error: unknown) => {
    await teardown()
    return giveUp(`cannot start Redis in a container of ${image}: ${firstLine(error)}`)
  })
  await trial.stop()
  say(
    `Redis ${trial.version} in containers of ${image}, Docker ${engine.info.containerRuntime.serverVersion}; ` +
      'tests that stop or restart Redis use a local redis-server',
  )
  project.provide('redisContainers', { image, run })
}

/** Removes what files have left that were killed; where Ryuk is disabled, nobody else does. */
export async function teardown(): Promise<void> {
  await removeWhere(({ Labels }) => Labels[RUN_LABEL] === run)
}

async function removeWhere(matches: (container: { Created: number; Labels: Labels }) => boolean): Promise<void> {
  const { dockerode } = (await getContainerRuntimeClient()).container
  // All: one that could not be started is there too.
  const ours = await dockerode.listContainers({ all: true, filters: { label: [RUN_LABEL] } })
  const removals = ours.filter(matches).map(({ Id }) => dockerode.getContainer(Id).remove({ force: true, v: true }))
  // One that fails to be removed is being removed by somebody else.
  await Promise.allSettled(removals)
}

async function findEngine(): Promise<ContainerRuntimeClient> {
  const advice = 'start one, or name it by DOCKER_HOST; npm test needs none'
  const host = process.env['DOCKER_HOST']
  // testcontainers would go on to other sockets, and so to an engine that was not meant.
  if (host && !(await answers(host))) giveUp(`no Docker engine answers at DOCKER_HOST=${host}: ${advice}`)
  return getContainerRuntimeClient().catch(() => giveUp(`no Docker engine answers: ${advice}`))
}

async function answers(dockerHost: string): Promise<boolean> {
  try {
    const { protocol, hostname, port, pathname } = new URL(dockerHost)
    const isPath = protocol === 'unix:' || protocol === 'npipe:'
    const socket = connect(isPath ? { path: pathname } : { host: hostname, port: Number(port || 2375), timeout: 5_000 })
    socket.on('timeout', () => socket.destroy(new Error('no answer')))
    await once(socket, 'connect')
    socket.destroy()
    return true
  } catch {
    return false
  }
}

/** Here, because it may take longer than a hook of a test file may. */
async function fetchImage(engine: ContainerRuntimeClient, image: string): Promise<void> {
  const name = ImageName.fromString(image)
  if (await engine.image.exists(name)) return
  say(`fetching ${image}`)
  await engine.image
    .pull(name, { force: false, platform: undefined })
    .catch((error: unknown) => giveUp(`cannot fetch ${image} (MILLRACE_TEST_IMAGE names another): ${firstLine(error)}`))
}

function say(line: string): void {
  process.stderr.write(`test:containers: ${line}\n`)
}

/** Ends the run here: an error that is thrown is shown with its stack and the source around it. */
function giveUp(line: string): never {
  say(line)
  process.exit(1)
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n', 1).join('').trim()
}
