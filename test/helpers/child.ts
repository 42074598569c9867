import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { inject } from 'vitest'
import { onEnd } from './cleanup.ts'
import { eventually } from './eventually.ts'

/** A real Node process that a test may kill. */
export interface Child {
  readonly pid: number
  /** Lines printed so far, to stdout and to stderr. */
  readonly stdout: readonly string[]
  readonly stderr: readonly string[]
  /** The first line of stdout or stderr that matches, printed already or still to come. */
  line(pattern: RegExp, options?: { timeoutMs?: number }): Promise<RegExpExecArray>
  signal(name: NodeJS.Signals): void
  /** Resolves when it has ended and all it printed has been read. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

export interface ChildOptions {
  args?: readonly string[]
  /** Added to the environment of the tests. */
  env?: NodeJS.ProcessEnv
  cwd?: string
}

/** Given to `node --import`, lets it run TypeScript. */
export const LOADER = new URL('./typescript.js', import.meta.url).href

/** Starts a script, TypeScript too, in a process of its own, which is killed at the end of the test. */
export function startChild(script: string | URL, options: ChildOptions = {}): Child {
  const path = script instanceof URL ? fileURLToPath(script) : script
  const child = spawn(process.execPath, [...programOf(path), ...(options.args ?? [])], {
    cwd: options.cwd,
    env: { ...withoutRunner(process.env), ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const stdout: string[] = []
  const stderr: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => stdout.push(line))
  createInterface({ input: child.stderr }).on('line', (line) => stderr.push(line))
  let isOver = false
  const exited: Child['exited'] = new Promise((resolve) => {
    child.once('close', (code, signal) => {
      isOver = true
      resolve({ code, signal })
    })
  })
  onEnd(async () => {
    child.kill('SIGKILL')
    await exited
  })
  return {
    pid: child.pid ?? 0,
    stdout,
    stderr,
    exited,
    signal: (name) => void child.kill(name),
    line: (pattern, { timeoutMs = 60_000 } = {}) => awaitLine(pattern, timeoutMs),
  }

  async function awaitLine(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    const find = (): RegExpExecArray | undefined => {
      for (const line of [...stdout, ...stderr]) {
        const match = pattern.exec(line)
        if (match !== null) return match
      }
      return undefined
    }
    const over = (): Error => new Error(`no line ${String(pattern)} from ${path}; it printed:\n${output()}`)
    const found = await eventually(
      () => {
        const match = find()
        if (match === undefined && !isOver) throw over()
        return match
      },
      { timeoutMs },
    )
    if (found === undefined) throw over()
    return found
  }

  function output(): string {
    return [...stdout, ...stderr].slice(-30).join('\n')
  }
}

/** From a bundle where there is one (bundles.ts). */
function programOf(path: string): string[] {
  const bundle = inject('scriptBundles')[path]
  return bundle === undefined ? ['--import', LOADER, path] : [bundle]
}

/** The runner's own variables would make a child believe that it is a test runner. */
function withoutRunner(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([key]) => !/^(VITEST|NODE_OPTIONS$|NODE_CHANNEL)/.test(key)))
}
