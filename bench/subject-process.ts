import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ContenderName } from './contenders/contender.ts'
import type { Answer, Figures, Order, Stop, Task } from './steps/task.ts'

export interface SubjectOptions {
  readonly url: string
  readonly contender: ContenderName
  readonly signal: AbortSignal
  /** Where to write the CPU profile of the process and its threads. @default none is taken */
  readonly profileFolder?: string | undefined
}

/** Nothing that is measured takes this long; who does hangs. */
const LIMIT_MS = 180_000
/** For what a process that was told to stop still has to do. */
const STOP_MS = 30_000

/** One fresh process that is measured, seen from outside. */
export class SubjectProcess {
  readonly #child: ChildProcess
  readonly #label: string
  readonly #answers: Answer[] = []
  #ended: string | undefined
  #wake = () => {}
  readonly exited: Promise<void>

  constructor({ url, contender, signal, profileFolder }: SubjectOptions, task: Task) {
    this.#label = `${contender} ${task.step}`
    const profiling =
      profileFolder === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${join(profileFolder, task.step)}`]
    const path = fileURLToPath(new URL('subject.js', import.meta.url))
    this.#child = fork(path, { execArgv: profiling, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    const kill = () => void this.#child.kill('SIGKILL')
    signal.addEventListener('abort', kill, { once: true })
    process.once('exit', kill)
    this.#child.on('message', (answer: Answer) => {
      this.#answers.push(answer)
      this.#wake()
    })
    this.exited = new Promise((resolve) => {
      const end = (how: string) => {
        this.#ended ??= how
        signal.removeEventListener('abort', kill)
        process.off('exit', kill)
        this.#wake()
        resolve()
      }
      this.#child.once('error', (error) => end(`did not start: ${error.message}`))
      this.#child.once('close', (code, by) => end(`ended without an answer: ${by ?? `exit code ${code}`}`))
    })
    this.#send({ kind: 'measure', contender, url, task })
    if (signal.aborted) kill()
  }

  /** What it measured, when it has ended. */
  async figures(): Promise<Figures> {
    const answer = await this.#answer(LIMIT_MS)
    if (answer.kind !== 'figures') throw new Error(`${this.#label}: expected figures, got ${answer.kind}`)
    await this.exited
    return answer.figures
  }

  /** Resolves when an idle worker stands by. */
  async ready(): Promise<void> {
    const { kind } = await this.#answer(LIMIT_MS)
    if (kind !== 'ready') throw new Error(`${this.#label}: expected it to be ready, got ${kind}`)
  }

  async stop(): Promise<void> {
    this.#send({ kind: 'stop' })
    await this.#answer(STOP_MS)
    await this.exited
  }

  /** Ends it, whatever it does. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.exited
  }

  #send(message: Order | Stop): void {
    // Whether it got there shows in its answer.
    this.#child.send(message, () => {})
  }

  async #answer(limitMs: number): Promise<Answer> {
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      this.#wake()
    }, limitMs)
    try {
      for (;;) {
        const answer = this.#answers.shift()
        if (answer?.kind === 'failed') throw new Error(`${this.#label}: ${answer.message}`)
        if (answer !== undefined) return answer
        if (this.#ended !== undefined) throw new Error(`${this.#label}: the process ${this.#ended}`)
        if (isLate) throw new Error(`${this.#label}: no answer within ${limitMs / 1000} s`)
        await new Promise<void>((resolve) => (this.#wake = resolve))
      }
    } finally {
      clearTimeout(timer)
    }
  }
}
