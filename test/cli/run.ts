import { spawn, type ChildProcessByStdio } from 'node:child_process'
import { text } from 'node:stream/consumers'
import type { Readable, Writable } from 'node:stream'
import { onEnd } from '../helpers/cleanup.ts'
import { cliMain } from '../helpers/cli-main.ts'

/** What the built command line printed, and how it ended. */
export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunningCli {
  readonly process: ChildProcessByStdio<Writable, Readable, Readable>
  readonly ended: Promise<Outcome>
}

export interface CliOptions {
  /** Redis, as the environment names it. */
  redis?: string
  env?: NodeJS.ProcessEnv
  /** Left open if undefined. */
  stdin?: string | Buffer
}

/** Runs the built command line to its end. */
export function millrace(args: readonly string[], options: CliOptions = {}): Promise<Outcome> {
  return startMillrace(args, { stdin: '', ...options }).ended
}

/** Starts the built command line; it is killed at the end of the test. */
export function startMillrace(args: readonly string[], options: CliOptions = {}): RunningCli {
  const env = environment(options)
  const child = spawn(process.execPath, [cliMain(args), ...args], { env, stdio: ['pipe', 'pipe', 'pipe'] })
  child.stdin.on('error', () => {}) // it may end before it has read everything
  if (options.stdin !== undefined) child.stdin.end(options.stdin)
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve))
  onEnd(async () => {
    child.kill('SIGKILL')
    await closed
  })
  const ended = Promise.all([closed, text(child.stdout), text(child.stderr)]).then(([code, stdout, stderr]) => ({
    code,
    stdout,
    stderr,
  }))
  return { process: child, ended }
}

function environment({ redis, env }: CliOptions): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(([name]) => !/^(VITEST|NODE_|MILLRACE_|REDIS_)/.test(name))
  return { ...Object.fromEntries(own), ...(redis === undefined ? {} : { MILLRACE_REDIS_URL: redis }), ...env }
}
