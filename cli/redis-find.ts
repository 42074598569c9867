/** Finds a Redis server program on this machine, or says with which command to install one. */
import { join } from 'node:path'
import { findInPath } from './apt-package.ts'
import { probeServer, type ServerProgram, unpackServer } from './redis-package.ts'

export interface FindOptions {
  /** @default process.env */
  env?: NodeJS.ProcessEnv
  /** Told in one line when a package is downloaded. @default silent */
  say?: (line: string) => void
  /** Where a downloaded package is unpacked. @default node_modules/.cache/millrace/redis below the working directory */
  cacheDir?: string
  /** @default process.platform */
  platform?: NodeJS.Platform
}

export interface FoundServer extends ServerProgram {
  /** For people: `from PATH`, or where the package has been unpacked. */
  from: string
}

/** No Redis could be found or started; the message says what to do. */
export class RedisServerError extends Error {
  override readonly name = 'RedisServerError'
  readonly code = 'ERR_NO_REDIS_SERVER'
}

/** `redis-server` or `valkey-server` from PATH, else the distribution's package where apt can download it. */
export async function findRedisServer(options: FindOptions = {}): Promise<FoundServer> {
  const { env = process.env, platform = process.platform, say = () => {} } = options
  const failures: Error[] = []
  for (const name of ['redis-server', 'valkey-server']) {
    const path = await findInPath(name, env)
    if (path === undefined) continue
    try {
      return { ...(await probeServer(path)), from: 'from PATH' }
    } catch (error) {
      failures.push(error as Error)
    }
  }
  if (platform === 'linux' && (await findInPath('apt-get', env)) && (await findInPath('dpkg-deb', env))) {
    const cacheDir = options.cacheDir ?? join(process.cwd(), 'node_modules/.cache/millrace/redis')
    try {
      return { ...(await unpackServer(cacheDir, env, say)), from: 'unpacked from its Debian package' }
    } catch (error) {
      failures.push(error as Error)
    }
  }
  throw new RedisServerError(await advice(platform, env, failures), { cause: failures.at(-1) })
}

const INSTALLERS = [
  { program: 'apt-get', command: 'sudo apt-get install --yes redis-server' },
  { program: 'dnf', command: 'sudo dnf install --assumeyes redis' },
  { program: 'apk', command: 'apk add redis' },
  { program: 'pacman', command: 'sudo pacman -S --noconfirm valkey' },
  { program: 'zypper', command: 'sudo zypper --non-interactive install redis' },
  { program: 'brew', command: 'brew install redis' },
]

async function advice(platform: NodeJS.Platform, env: NodeJS.ProcessEnv, failures: readonly Error[]): Promise<string> {
  const why = failures.map((failure) => ` (${failure.message})`).join('')
  const otherwise = 'Or set MILLRACE_TEST_REDIS_URL to a Redis whose data may be thrown away.'
  return `no redis-server or valkey-server in PATH${why}. Install one: ${await installCommand(platform, env)}. ${otherwise}`
}

async function installCommand(platform: NodeJS.Platform, env: NodeJS.ProcessEnv): Promise<string> {
  if (platform === 'darwin') return 'brew install redis'
  if (platform === 'win32') return 'wsl --install, and then inside it: sudo apt-get install --yes redis-server'
  for (const { program, command } of INSTALLERS) {
    if (await findInPath(program, env)) return command
  }
  return 'docker run --rm --publish 6379:6379 redis:7, with MILLRACE_TEST_REDIS_URL=redis://127.0.0.1:6379'
}
