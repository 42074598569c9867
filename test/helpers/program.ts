import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { onEnd } from './cleanup.ts'
import { cliMain } from './cli-main.ts'
import { eventually } from './eventually.ts'

/** The built command line while it runs: without a loader, so that what it loads it loads by itself. */
export interface Program {
  readonly pid: number
  readonly stdout: readonly string[]
  /** What it said: plain lines as they are; of a log line its message, but not what workers tell below a warning. */
  readonly stderr: readonly string[]
  /** Every line of its log. */
  readonly log: readonly LogLine[]
  /** All of stderr. */
  readonly raw: readonly string[]
  /** The first line of stderr that matches, after the `skip` first ones. */
  said(pattern: RegExp, options?: { skip?: number; timeoutMs?: number }): Promise<RegExpExecArray>
  signal(name: NodeJS.Signals): void
  /** To it and to all its children, as a terminal does. */
  signalGroup(name: NodeJS.Signals): void
  /** Resolves when it has ended; `closed` when its children have too, for they share its output. */
  readonly exited: Promise<number | null>
  readonly closed: Promise<void>
}

/** A line of a log in JSON. */
export interface LogLine {
  readonly level: string
  readonly role: string
  readonly msg: string
  readonly [field: string]: unknown
}

/** Starts it in a process group of its own, all of which is killed at the end of the test. */
export function startProgram(
  args: readonly string[],
  { env = {}, cwd }: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Program {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(VITEST|NODE_|MILLRACE_|REDIS_)/.test(name))
  const child = spawn(process.execPath, [cliMain(args), ...args], {
    cwd,
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  const pid = child.pid ?? 0
  const stdout: string[] = []
  const stderr: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => stdout.push(line))
  const log: LogLine[] = []
  const raw: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => {
    raw.push(line)
    const logged = logLine(line)
    if (logged !== undefined) log.push(logged)
    if (logged?.role === 'worker' && /^(info|debug)$/.test(logged.level)) return
    stderr.push(logged?.msg ?? line)
  })
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const signalGroup = (name: NodeJS.Signals) => {
    try {
      process.kill(-pid, name)
    } catch {
      // all of it is gone
    }
  }
  onEnd(async () => {
    signalGroup('SIGKILL')
    await closed
  })
  return {
    pid,
    stdout,
    stderr,
    log,
    raw,
    exited,
    closed,
    signal: (name) => void child.kill(name),
    signalGroup,
    said: (pattern, { skip = 0, timeoutMs = 60_000 } = {}) =>
      eventually(
        () => {
          const match = stderr.map((line) => pattern.exec(line)).filter((found) => found !== null)[skip]
          if (match === undefined) throw new Error(`no line ${String(pattern)}; it said:\n${stderr.join('\n')}`)
          return match
        },
        { timeoutMs },
      ),
  }
}

/** Undefined for a line that is none of a log. */
export function logLine(line: string): LogLine | undefined {
  return line.startsWith('{"level":') ? (JSON.parse(line) as LogLine) : undefined
}

/** Whether a process runs; one that has ended and that nobody has asked for its exit code does not. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch (error) {
    return (error as NodeJS.ErrnoException).syscall === 'open' && process.platform !== 'linux'
  }
}
