/**
 * Redis wherever there is one: for `millrace demo` and for the tests.
 *
 * In this order: the server named by MILLRACE_TEST_REDIS_URL; `redis-server` or `valkey-server` from PATH; on Debian and
 * Ubuntu the distribution's package, unpacked into a cache and not installed. Otherwise an error with the command that
 * installs one. What is found runs as a private process: on a free port of the loopback interface, in a temporary
 * directory, with nothing persisted unless the arguments say so.
 *
 * A private process does not outlive us. An 'exit' handler kills it; for the case that we are killed ourselves, a shell
 * waits for the pipe from us to close and then ends the server and removes its directory.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { connect, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { programEnv } from './apt-package.ts'
import { freePort } from './free-port.ts'
import { type FindOptions, findRedisServer, type FoundServer, RedisServerError } from './redis-find.ts'

export { findRedisServer, RedisServerError } from './redis-find.ts'

export interface PrivateRedis {
  url: string
  /** One line for people: where this Redis comes from. */
  origin: string
  pid?: number
  dir?: string
  /** Ends a private process and removes its temporary directory; may be called twice. */
  stop(): Promise<void>
}

export interface RedisServerOptions extends FindOptions {
  /** Further arguments of redis-server; they come after ours, and the last one of a kind counts. */
  args?: readonly string[]
  /** @default a free one */
  port?: number
  /** Data directory; `stop()` keeps it. @default a temporary one, which `stop()` removes */
  dir?: string
}

const READY_MS = 20_000
const STOP_MS = 5_000
const STARTS = 5

/** The Redis of MILLRACE_TEST_REDIS_URL if that is set, else a private one. */
export async function openRedis(options: RedisServerOptions = {}): Promise<PrivateRedis> {
  const url = (options.env ?? process.env)['MILLRACE_TEST_REDIS_URL']
  if (!url) return startRedis(options)
  return { url, origin: `${withoutPassword(url)} (MILLRACE_TEST_REDIS_URL)`, stop: async () => {} }
}

/** A private Redis process, ready for commands. */
export async function startRedis(options: RedisServerOptions = {}): Promise<PrivateRedis> {
  const server = await findRedisServer(options)
  const dir = options.dir ?? (await mkdtemp(join(tmpdir(), 'millrace-redis-')))
  const removeTemporary = async (): Promise<void> => {
    if (options.dir === undefined) await rm(dir, { recursive: true, force: true })
  }
  try {
    const { env = process.env, args = [] } = options
    const launch = { env, args, dir, isTemporary: options.dir === undefined }
    const { child, port } = await launchUntilReady(server, launch, options.port)
    // What the caller keeps is shut down in order; of the rest nothing remains anyway.
    const signal = options.dir === undefined ? 'SIGKILL' : 'SIGTERM'
    const stop = async (): Promise<void> => {
      await end(child, signal)
      await removeTemporary()
    }
    const origin = `${basename(server.path)} ${server.version} ${server.from}, private, port ${port}`
    return { url: `redis://127.0.0.1:${port}`, origin, pid: child.pid ?? 0, dir, stop }
  } catch (error) {
    await removeTemporary()
    throw error
  }
}

interface Launch {
  env: NodeJS.ProcessEnv
  args: readonly string[]
  dir: string
  isTemporary: boolean
}

async function launchUntilReady(
  server: FoundServer,
  launch: Launch,
  givenPort: number | undefined,
): Promise<{ child: ChildProcess; port: number }> {
  for (let starts = 1; ; starts++) {
    const port = givenPort ?? (await freePort())
    const log = join(launch.dir, 'server.log')
    const child = await spawnServer(server, launch, { port, log })
    if (await isReady(child, port)) return { child, port }
    await end(child, 'SIGKILL')
    const text = await readFile(log, 'utf8').catch(() => '')
    if (!/address already in use/i.test(text) || starts === STARTS) {
      const lines = text.trim().split('\n').slice(-10).join('\n')
      throw new RedisServerError(`${server.path} did not answer on port ${port}; the end of its log:\n${lines}`)
    }
    // Somebody took the port since we looked; a given port may be free again in a moment.
    await sleep(200)
  }
}

const children = new Set<ChildProcess>()

async function spawnServer(
  server: FoundServer,
  { env, args, dir, isTemporary }: Launch,
  { port, log }: { port: number; log: string },
): Promise<ChildProcess> {
  const ours = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', dir, '--save', '', '--appendonly', 'no']
  // A file, not a pipe: whoever waits for the end of our own output does not wait for the server, and the log can be read.
  const file = await open(log, 'w')
  const stdio = ['ignore', file.fd, file.fd] as const
  const child = spawn(server.path, [...ours, ...args], { stdio: [...stdio], env: programEnv(env, server.libraryPath) })
  child.on('error', () => {}) // a start that fails is told by isReady
  child.unref()
  await file.close()
  if (children.size === 0) process.on('exit', killAll)
  children.add(child)
  const guard = startGuard(child, isTemporary ? dir : '')
  child.once('exit', () => {
    children.delete(child)
    if (children.size === 0) process.off('exit', killAll)
    // A guard that lived on could end a later process that got the same id.
    guard?.kill('SIGKILL')
  })
  return child
}

function killAll(): void {
  for (const child of children) child.kill('SIGKILL')
}

/** Waits for our end of the pipe to close, however we end, and then ends the server and removes its temporary directory. */
function startGuard(child: ChildProcess, temporaryDir: string): ChildProcess | undefined {
  if (process.platform === 'win32' || child.pid === undefined) return undefined
  const script = `trap '' INT TERM HUP; read -r _; kill -9 "$1"; [ -z "$2" ] || rm -rf "$2"`
  const guard = spawn('/bin/sh', ['-c', script, 'millrace-redis-guard', `${child.pid}`, temporaryDir], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  guard.on('error', () => {})
  guard.unref()
  const pipe = guard.stdin
  pipe?.on('error', () => {})
  if (pipe instanceof Socket) pipe.unref()
  return guard
}

/** Ready means: a PING is answered, and by this very process, not by a stranger who has the port. */
async function isReady(child: ChildProcess, port: number): Promise<boolean> {
  const deadline = Date.now() + READY_MS
  while (Date.now() < deadline && isRunning(child)) {
    const reply = await ask(port)
    const pid = /^process_id:(\d+)/m.exec(reply)?.[1]
    if (reply.startsWith('+PONG') && pid === `${child.pid}`) return true
    if (reply.startsWith('-NOAUTH')) return true
    await sleep(20)
  }
  return false
}

async function ask(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', timeout: 1_000 })
  socket.on('timeout', () => socket.destroy())
  socket.write('PING\r\nINFO server\r\nQUIT\r\n')
  let reply = ''
  try {
    for await (const chunk of socket) reply += String(chunk)
  } catch {
    // nobody listens yet
  }
  return reply
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (!isRunning(child)) return
  const exited = once(child, 'exit')
  child.kill(signal)
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  child.ref()
  await exited
  clearTimeout(timer)
}

function isRunning(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null
}

function withoutPassword(url: string): string {
  return url.replace(/\/\/[^@/]*@/, '//***@')
}
