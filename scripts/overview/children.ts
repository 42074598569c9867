import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** Programs that the run starts, all of which it ends. */
const children = new Set<ChildProcess>()
const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

/** The built command line. */
export function millrace(redisUrl: string, ...args: readonly string[]): ChildProcess {
  return start(process.execPath, [MAIN, ...args], { ...process.env, MILLRACE_REDIS_URL: redisUrl })
}

export function start(program: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): ChildProcess {
  const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-2000)
  })
  child.once('exit', (code) => {
    children.delete(child)
    if (code !== null && code !== 0) process.stderr.write(`${program} ${args.join(' ')} ended with ${code}:\n${said}\n`)
  })
  children.add(child)
  return child
}

/** With all the processes that it has started. */
export async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  const ended = once(child, 'exit')
  process.kill(-child.pid, signal)
  await ended
}

export async function endAll(): Promise<void> {
  await Promise.all([...children].map((child) => end(child, 'SIGKILL')))
}
