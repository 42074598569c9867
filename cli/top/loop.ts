import { setTimeout as sleep } from 'node:timers/promises'
import type { DeadResult, Inspector } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { codeOf, EXIT, exitCodeOf, isExpected } from '../exit.ts'
import { countText, plural, printable } from '../output.ts'
import { onStopSignals } from '../stop-signals.ts'
import { whoami } from '../whoami.ts'
import { draw, pageOf } from './draw.ts'
import { look } from './look.ts'
import { firstState, type Effect, type Happening, type RedriveAsked, type Target, type TopState } from './state.ts'
import { Terminal } from './terminal.ts'
import { targetText, update } from './update.ts'

/** Runs `top` on a terminal: looks, draws, and does what the keys ask for. What follows from what is in `update`. */
export class Top {
  readonly #inspector: Inspector
  readonly #context: CliContext
  readonly #everyMs: number
  readonly #terminal: Terminal
  readonly #ended: Promise<void>
  #resolve = () => {}
  #fail: (error: unknown) => void = () => {}
  #state: TopState
  #isOver = false
  /** Ends the pause before the next look. */
  #wake = new AbortController()
  /** Ends a redrive, or the count before it. */
  #moving: AbortController | undefined

  constructor(context: CliContext, inspector: Inspector, asked: { stream: string | undefined; everyMs: number }) {
    this.#context = context
    this.#inspector = inspector
    this.#everyMs = asked.everyMs
    this.#state = firstState(asked.stream)
    this.#ended = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#fail = reject
    })
    this.#terminal = new Terminal(context.stdin, context.stdout, {
      key: (key) =>
        this.#guarded(() => this.#happened({ kind: 'key', key, page: pageOf(this.#state, this.#terminal.size) })),
      resized: () => this.#guarded(() => this.#draw()),
      gone: () => this.#end(),
    })
  }

  async run(): Promise<void> {
    const stopListening = onStopSignals(
      () => this.#end(),
      (exitCode) => this.#context.exitNow(exitCode),
    )
    try {
      this.#terminal.open()
      this.#draw()
      this.#looking().catch((error: unknown) => this.#fail(error))
      await this.#ended
    } finally {
      this.#end()
      this.#terminal.close()
      stopListening()
    }
  }

  /** One look after the other, never two at once. */
  async #looking(): Promise<void> {
    while (!this.#isOver) {
      this.#wake = new AbortController()
      await this.#lookOnce()
      // A key that opened another view meanwhile has woken this one.
      await sleep(this.#everyMs, undefined, { signal: this.#wake.signal }).catch(() => {})
    }
  }

  async #lookOnce(): Promise<void> {
    const { view, cursor } = this.#state
    try {
      const seen = await look(this.#inspector, view, cursor.key)
      if (!this.#isOver) this.#happened({ kind: 'seen', view, seen, atMs: Date.now() })
    } catch (error) {
      if (this.#isOver) return
      if (!isExpected(error)) throw error
      const isAway = exitCodeOf(error) === EXIT.redis
      this.#happened({ kind: 'trouble', text: `${isAway ? 'trying again: ' : ''}${messageOf(error)}` })
    }
  }

  #happened(happening: Happening): void {
    if (this.#isOver) return
    const { state, effects } = update(this.#state, happening)
    this.#state = state
    this.#draw()
    for (const effect of effects) this.#do(effect)
  }

  #draw(): void {
    this.#terminal.draw(draw(this.#state, this.#terminal.size, this.#context.env))
  }

  #do(effect: Effect): void {
    switch (effect.kind) {
      case 'quit':
        return this.#end()
      case 'look':
        return this.#wake.abort()
      case 'stop':
        return this.#moving?.abort()
      case 'plan':
        return void this.#told((signal) => this.#plan(effect.asked, signal))
      case 'redrive':
        return void this.#told((signal) => this.#redrive(effect.asked, effect.untilDeadId, signal))
      case 'pause':
      case 'resume':
        return void this.#told(() => this.#pause(effect.kind, effect.target))
    }
  }

  /** Whatever comes of a change, also that it failed, is told of on the last line. */
  async #told(change: (signal: AbortSignal) => Promise<string | undefined>): Promise<void> {
    const moving = (this.#moving = new AbortController())
    try {
      const text = await change(moving.signal)
      if (text === undefined) return
      this.#happened({ kind: 'told', text, isBusy: false })
      this.#wake.abort()
    } catch (error) {
      if (!isExpected(error)) return this.#fail(error)
      this.#happened({ kind: 'told', text: printable(messageOf(error)), isBusy: false })
    }
  }

  async #plan(asked: RedriveAsked, signal: AbortSignal): Promise<string | undefined> {
    const { stream, group } = asked
    const plan = await this.#inspector.dead.redrive(stream, group, { ...idsOf(asked), signal })
    if (signal.aborted) return 'nothing was changed'
    this.#happened({ kind: 'planned', asked, count: plan.count, untilDeadId: plan.untilDeadId })
    return undefined
  }

  async #redrive(asked: RedriveAsked, untilDeadId: string | null, signal: AbortSignal): Promise<string> {
    const { stream, group } = asked
    this.#happened({ kind: 'told', text: 'redriving; Esc ends that', isBusy: true })
    const result = await this.#inspector.dead.redrive(stream, group, {
      ...idsOf(asked),
      execute: true,
      untilDeadId,
      signal,
      onProgress: ({ done }) =>
        this.#happened({ kind: 'told', text: `redriven ${countText(done)}; Esc ends that`, isBusy: true }),
    })
    return redrivenText(result, targetText(asked))
  }

  async #pause(verb: 'pause' | 'resume', target: Target): Promise<string> {
    const { stream, group } = target
    const options = group === undefined ? {} : { group }
    if (verb === 'pause') {
      await this.#inspector.pause(stream, { ...options, by: whoami() })
      return `paused ${targetText(target)}; what runs finishes`
    }
    const { still } = await this.#inspector.resume(stream, options)
    const others = still.map((one) => targetText({ stream, group: one.group ?? undefined }))
    return `resumed ${targetText(target)}${others.length === 0 ? '' : `; ${others.join(', ')} stays paused`}`
  }

  /** What fails where nobody waits for it must still give the terminal back. */
  #guarded(handle: () => void): void {
    try {
      handle()
    } catch (error) {
      this.#fail(error)
    }
  }

  #end(): void {
    this.#isOver = true
    this.#wake.abort()
    this.#moving?.abort()
    this.#resolve()
  }
}

function idsOf({ deadId }: RedriveAsked): { ids?: readonly string[] } {
  return deadId === undefined ? {} : { ids: [deadId] }
}

function redrivenText({ done, already, refused, interrupted }: DeadResult, where: string): string {
  const told = [
    `${interrupted ? 'interrupted: ' : ''}redriven ${plural(done, 'dead letter')} of ${where}`,
    ...(already === 0 ? [] : [`${countText(already)} gone already`]),
    ...(refused === 0 ? [] : [`${countText(refused)} could not be moved`]),
  ]
  return told.join(', ')
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : (codeOf(error) ?? String(error))
}
