/**
 * A PostgreSQL for tests: that of MILLRACE_TEST_POSTGRES_URL, in a database of the file's own, else a private server from
 * wherever there is one: in PATH, where Debian puts it, or from Debian's package, unpacked into a cache and not installed.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chown, mkdtemp, readdir, readFile, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { Client, Pool } from 'pg'
import { findInPath, programEnv, unpackProgram } from '../../cli/apt-package.ts'
import { freePort } from '../../cli/free-port.ts'
import { onEnd } from './cleanup.ts'
import { eventually } from './eventually.ts'

const run = promisify(execFile)

/** Where the user that PostgreSQL runs as can read it: the project's own folder may be below that of root. */
const CACHE =
  process.getuid?.() === 0
    ? '/var/cache/millrace/postgres'
    : join(import.meta.dirname, '../../node_modules/.cache/millrace/postgres')

interface Programs {
  /** The folder of `initdb` and `postgres`. */
  readonly bin: string
  readonly env: NodeJS.ProcessEnv
  readonly user: User
}

/** PostgreSQL refuses to run as root. */
type User = { readonly uid: number; readonly gid: number } | undefined

export interface TestPostgres {
  readonly url: string
  /** SIGKILL to all of it; undefined for a server that is not ours. */
  readonly kill: (() => Promise<void>) | undefined
  readonly restart: (() => Promise<void>) | undefined
}

/** Started for the test file that calls it, ended with it; undefined, and said on stderr, where there is none. */
export async function startPostgres(): Promise<TestPostgres | undefined> {
  const given = process.env['MILLRACE_TEST_POSTGRES_URL']
  if (given !== undefined) return { url: await databaseOn(given), kill: undefined, restart: undefined }
  try {
    return await startPrivate(await findPrograms())
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    process.stderr.write(
      `!!! SKIPPED, no PostgreSQL: ${why}; install it (sudo apt-get install --yes postgresql) or name one in MILLRACE_TEST_POSTGRES_URL\n`,
    )
    return undefined
  }
}

/** A pool that survives outages quietly; closed at the end of the test, or of the file. */
export function poolOf(url: string, max = 4): Pool {
  const pool = new Pool({ connectionString: url, max, connectionTimeoutMillis: 10_000 })
  pool.on('error', () => {}) // expected where a test takes PostgreSQL away
  onEnd(() => pool.end())
  return pool
}

async function startPrivate({ bin, env, user }: Programs): Promise<TestPostgres> {
  const dir = await mkdtemp(join(tmpdir(), 'millrace-postgres-'))
  let server: ChildProcess | undefined
  const kill = async (): Promise<void> => {
    const ended = server === undefined || server.exitCode !== null || server.signalCode !== null
    if (server === undefined || ended) return
    const closed = once(server, 'exit')
    // SIGQUIT ends its children too, at once and without writing anything more: to its data a crash.
    server.kill('SIGQUIT')
    await closed
  }
  onEnd(async () => {
    await kill()
    await rm(dir, { recursive: true, force: true })
  })
  if (user !== undefined) await chown(dir, user.uid, user.gid)
  const options = { env, cwd: dir, ...user }
  const data = join(dir, 'data')
  const flags = ['--username=millrace', '--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync']
  await run(join(bin, 'initdb'), ['-D', data, ...flags], options)
  const port = await freePort()
  const url = `postgres://millrace@127.0.0.1:${port}/postgres`
  const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'fsync=off', 'shared_buffers=16MB']
  const start = async (): Promise<void> => {
    const args = ['-D', data, '-p', String(port), ...settings.flatMap((setting) => ['-c', setting])]
    const said: string[] = []
    server = spawn(join(bin, 'postgres'), args, { ...options, stdio: ['ignore', 'ignore', 'pipe'] })
    server.stderr?.on('data', (chunk: Buffer) => said.push(chunk.toString()))
    await eventually(async () => {
      if (server?.exitCode !== null) return
      await answers(url)
    })
    if (server.exitCode !== null) throw new Error(`PostgreSQL did not start: ${said.join('').slice(-300)}`)
  }
  await start()
  return { url, kill, restart: async () => (await kill(), await start()) }
}

async function answers(url: string): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 2_000 })
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query('SELECT 1')
  } finally {
    await client.end().catch(() => {})
  }
}

/** A new database on a server that is not ours, dropped at the end of the file. */
async function databaseOn(given: string): Promise<string> {
  const name = `millrace_test_${randomUUID().replaceAll('-', '')}`
  const say = async (sql: string): Promise<void> => {
    const client = new Client({ connectionString: given })
    await client.connect()
    await client.query(sql).finally(() => client.end())
  }
  await say(`CREATE DATABASE ${name}`)
  onEnd(() => say(`DROP DATABASE ${name} WITH (FORCE)`))
  const url = new URL(given)
  url.pathname = `/${name}`
  return url.href
}

async function findPrograms(): Promise<Programs> {
  const user = await ordinaryUser()
  const inPath = await findInPath('postgres', process.env)
  const folders = inPath === undefined ? [] : [dirname(await realpath(inPath))]
  for (const folder of [...folders, ...(await debianFolders('/'))]) {
    const found = await proven(folder, process.env, user)
    if (found !== undefined) return found
  }
  const wanted = {
    what: 'PostgreSQL',
    packages: ['18', '17', '16', '15', '14', '13'].map((version) => [`postgresql-${version}`]),
    find: async (root: string, libraryPath: string | undefined) => {
      const env = programEnv(process.env, libraryPath)
      const [folder] = await debianFolders(root)
      return folder === undefined ? undefined : proven(folder, env, user)
    },
  }
  return unpackProgram(CACHE, process.env, wanted, () =>
    process.stderr.write(`no PostgreSQL on this machine: unpacking Debian's package below ${CACHE}\n`),
  )
}

/** The newest version first. */
async function debianFolders(root: string): Promise<string[]> {
  const versions = await readdir(join(root, 'usr/lib/postgresql')).catch(() => [])
  const newest = versions.filter((name) => /^\d+$/.test(name)).sort((a, b) => Number(b) - Number(a))
  return newest.map((version) => join(root, 'usr/lib/postgresql', version, 'bin'))
}

async function proven(bin: string, env: NodeJS.ProcessEnv, user: User): Promise<Programs | undefined> {
  try {
    for (const name of ['initdb', 'postgres']) {
      await run(join(bin, name), ['--version'], { env, cwd: '/', timeout: 20_000, ...user })
    }
    return { bin, env, user }
  } catch {
    return undefined
  }
}

/** Of those that every system has, the one made for it, else nobody. */
async function ordinaryUser(): Promise<User> {
  if (process.getuid?.() !== 0) return undefined
  const users = await readFile('/etc/passwd', 'utf8')
  const [, uid, gid] = /^postgres:[^:]*:(\d+):(\d+):/m.exec(users) ?? /^nobody:[^:]*:(\d+):(\d+):/m.exec(users) ?? []
  if (uid === undefined || gid === undefined) throw new Error('this is root, and there is no other user to run it as')
  return { uid: Number(uid), gid: Number(gid) }
}
