/** The distribution's Redis, or its Valkey, without installing it: see apt-package.ts. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { programEnv, unpackProgram } from './apt-package.ts'

const run = promisify(execFile)

/** In order of preference; Debian's redis-server binary is a link into redis-tools. */
const PACKAGES = [
  { server: 'redis-server', packages: ['redis-server', 'redis-tools'] },
  { server: 'valkey-server', packages: ['valkey-server', 'valkey-tools'] },
] as const

/** A server program that has answered `--version`; `libraryPath` is set where its libraries are not the system's. */
export interface ServerProgram {
  path: string
  version: string
  libraryPath?: string
}

/** Runs `--version`: proves that the program and all its libraries load here. */
export async function probeServer(path: string, libraryPath?: string): Promise<ServerProgram> {
  const { stdout } = await run(path, ['--version'], { timeout: 10_000, env: programEnv(process.env, libraryPath) })
  const version = /\bv=(\S+)/.exec(stdout)?.[1]
  if (version === undefined) throw new Error(`expected ${path} --version to print v=…, got: ${stdout.trim()}`)
  return libraryPath === undefined ? { path, version } : { path, version, libraryPath }
}

/** A server from the distribution's package, unpacked below `cacheDir` unless an earlier run has done it. */
export function unpackServer(
  cacheDir: string,
  env: NodeJS.ProcessEnv,
  say: (line: string) => void,
): Promise<ServerProgram> {
  const wanted = { what: 'a Redis server', packages: PACKAGES.map(({ packages }) => packages), find: serverIn }
  return unpackProgram(cacheDir, env, wanted, () =>
    say(`no redis-server in PATH: unpacking this distribution's package below ${cacheDir} (nothing is installed)`),
  )
}

async function serverIn(root: string, libraryPath: string | undefined): Promise<ServerProgram | undefined> {
  for (const { server } of PACKAGES) {
    const found = await probeServer(join(root, 'usr/bin', server), libraryPath).catch(() => undefined)
    if (found) return found
  }
  return undefined
}
