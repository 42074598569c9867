/**
 * A program of the distribution without installing it: `apt-get download` and `dpkg-deb -x` into a cache directory.
 *
 * Needs no root, starts no daemon and leaves the system as it is. Where apt has no package lists (fresh containers) or
 * old ones, they are downloaded into a directory of our own. Libraries that the program needs and the machine lacks are
 * taken from the packages that its package depends on, and found through LD_LIBRARY_PATH.
 *
 * Several processes may do this at once: each unpacks under its own name and renames; who comes second uses what is there.
 */
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { access, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

const APT_TIMEOUT_MS = 180_000

/** What is to be unpacked. */
export interface Wanted<Found> {
  /** For people: `a Redis server`. */
  readonly what: string
  /** Packages that belong together; of several such sets the first that apt can provide is taken. */
  readonly packages: readonly (readonly string[])[]
  /** The program below this folder, with these libraries beside the system's; undefined unless it starts. */
  find(root: string, libraryPath: string | undefined): Promise<Found | undefined>
}

/** The first executable of this name in the PATH of `env`. */
export async function findInPath(name: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  for (const folder of (env['PATH'] ?? '').split(delimiter).filter((entry) => entry !== '')) {
    const path = join(folder, name)
    const isExecutable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (isExecutable) return path
  }
  return undefined
}

/** Adds where the libraries of an unpacked program are. */
export function programEnv(env: NodeJS.ProcessEnv, libraryPath: string | undefined): NodeJS.ProcessEnv {
  if (libraryPath === undefined) return env
  const given = env['LD_LIBRARY_PATH']
  return { ...env, LD_LIBRARY_PATH: given ? `${libraryPath}:${given}` : libraryPath }
}

/** A program from the distribution's package, unpacked below `cacheDir` unless an earlier run has done it; that is said by `onUnpack`. */
export async function unpackProgram<Found>(
  cacheDir: string,
  env: NodeJS.ProcessEnv,
  wanted: Wanted<Found>,
  onUnpack: () => void,
): Promise<Found> {
  const home = join(cacheDir, await systemName())
  const cached = await programIn(home, wanted)
  if (cached !== undefined) return cached
  onUnpack()
  const work = join(cacheDir, `.unpack-${process.pid}-${randomUUID()}`)
  try {
    await mkdir(work, { recursive: true })
    // What is there does not start any more (a system upgrade, for example): out of the way before ours takes its place.
    await rename(home, join(work, 'broken')).catch(ignore('ENOENT'))
    await downloadAndUnpack(work, env, wanted)
    await rename(join(work, 'root'), home).catch(ignore('ENOTEMPTY', 'EEXIST'))
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  const found = await programIn(home, wanted)
  if (found === undefined) throw new Error(`what was unpacked to ${home} does not start`)
  return found
}

async function downloadAndUnpack(work: string, env: NodeJS.ProcessEnv, wanted: Wanted<unknown>): Promise<void> {
  const apt = await privateApt(work, env)
  const failures: string[] = []
  for (const lists of ['system', 'private'] as const) {
    // One unreachable third-party source fails the update, although the distribution's own lists have come.
    if (lists === 'private') await apt.downloadLists().catch((error: unknown) => failures.push(lastLine(error)))
    for (const packages of wanted.packages) {
      try {
        await apt.unpack(packages)
        await addMissingLibraries(join(work, 'root'), { ...wanted, packages }, apt)
        return
      } catch (error) {
        failures.push(lastLine(error))
        await rm(join(work, 'root'), { recursive: true, force: true })
      }
    }
  }
  throw new Error(`apt could not provide ${wanted.what}: ${failures.join('; ')}`)
}

/** Adds what the packages depend on, one step of the dependency graph at a time, until the program starts. */
async function addMissingLibraries(
  root: string,
  { packages, find }: Pick<Wanted<unknown>, 'find'> & { packages: readonly string[] },
  apt: Apt,
): Promise<void> {
  const starts = async (): Promise<boolean> => (await programIn(root, { find })) !== undefined
  const known = new Set(packages)
  let step = [...packages]
  for (let depth = 0; depth < 4; depth++) {
    if (await starts()) return
    step = (await apt.libraries(step)).filter((name) => !known.has(name))
    if (step.length === 0) break
    for (const name of step) known.add(name)
    await apt.unpack(step)
  }
  if (!(await starts())) throw new Error(`${packages.join(' and ')} do not start on this machine`)
}

interface Apt {
  downloadLists(): Promise<void>
  unpack(packages: readonly string[]): Promise<void>
  libraries(packages: readonly string[]): Promise<string[]>
}

/** apt with a cache of its own; it reads the system's package lists until `downloadLists` gives it some of its own. */
async function privateApt(work: string, env: NodeJS.ProcessEnv): Promise<Apt> {
  const debs = join(work, 'debs')
  const lists = join(work, 'lists')
  const cache = join(work, 'cache')
  const root = join(work, 'root')
  await mkdir(join(lists, 'partial'), { recursive: true })
  await mkdir(join(cache, 'archives/partial'), { recursive: true })
  // apt would switch to its own user, who may not write here.
  const settings = ['-o', `Dir::Cache=${cache}`, '-o', 'APT::Sandbox::User=root', '-o', 'Acquire::Retries=2']
  const call = async (program: string, args: readonly string[], cwd = work): Promise<string> => {
    const options = { cwd, timeout: APT_TIMEOUT_MS, maxBuffer: 64 * 1024 * 1024, env: { ...env, LC_ALL: 'C' } }
    return (await run((await findInPath(program, env)) ?? program, args, options)).stdout
  }
  return {
    async downloadLists() {
      settings.push('-o', `Dir::State::Lists=${lists}`)
      await call('apt-get', [...settings, '-q', 'update'])
    },
    async unpack(packages) {
      // Empty again: a download that failed may have left some of its packages.
      await rm(debs, { recursive: true, force: true })
      await mkdir(debs)
      await call('apt-get', [...settings, '-q', 'download', ...packages], debs)
      for (const deb of await readdir(debs)) await call('dpkg-deb', ['-x', join(debs, deb), root])
    },
    async libraries(packages) {
      const text = await call('apt-cache', [...settings, 'depends', '--no-recommends', '--no-suggests', ...packages])
      const names = [...text.matchAll(/^ *\|?(?:Pre)?Depends: ([a-z0-9][a-z0-9.+-]*)$/gm)].map(
        (match) => match[1] ?? '',
      )
      // The C library belongs to the loader that is already there; mixing versions would break every program.
      return [...new Set(names)].filter((name) => /^(lib|lua)/.test(name) && !/^libc6|^libc-/.test(name))
    },
  }
}

async function programIn<Found>(root: string, { find }: Pick<Wanted<Found>, 'find'>): Promise<Found | undefined> {
  return find(root, (await libraryFolders(root)).join(':') || undefined)
}

async function libraryFolders(root: string): Promise<string[]> {
  const folders: string[] = []
  for (const base of [join(root, 'usr/lib'), join(root, 'lib')]) {
    const names = await readdir(base).catch(() => [])
    folders.push(...names.filter((name) => name.includes('-linux-')).map((name) => join(base, name)))
  }
  return folders
}

/** Part of the path, so that a cache carried into another system's container is not used there. */
async function systemName(): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '')
  const value = (key: string): string => new RegExp(`^${key}="?([A-Za-z0-9._-]+)`, 'm').exec(text)?.[1] ?? 'any'
  return `${value('ID')}-${value('VERSION_ID')}-${process.arch}`
}

function ignore(...codes: readonly string[]): (error: NodeJS.ErrnoException) => void {
  return (error) => {
    if (!codes.includes(error.code ?? '')) throw error
  }
}

function lastLine(error: unknown): string {
  const text =
    error instanceof Error ? ((error as Error & { stderr?: string }).stderr ?? '') || error.message : String(error)
  return text.trim().split('\n').at(-1) ?? ''
}
