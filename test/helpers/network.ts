/**
 * A network between a client and Redis that fails on demand.
 *
 * It understands enough RESP to act on a single command: to cut the connection before the command reaches the server, or
 * after the server has carried it out and before the client hears of it. All faults are those a real network has: what
 * has been sent arrives whole and in order, or not at all.
 */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Frame, FrameReader } from './resp.ts'

/** Name (in lower case) and arguments of a command. */
export type Match = (command: string[]) => boolean

export interface FaultProxy {
  url: string
  /** Connections that are open now. */
  connections(): number
  /** Resets all connections now; new ones are accepted. */
  cut(): void
  /** While on: no byte passes either way and nothing is closed. What was under way arrives when it is over. */
  blackhole(on: boolean): void
  /** The server carries the command out and answers; the client sees its connection close instead. Resolves when it happened. */
  swallowReplyTo(match: Match, times?: number): Promise<void>
  /** The same, but the connection stays open and silent: this reply and all later ones of the connection are dropped. */
  swallowReplyKeepOpen(match: Match, times?: number): Promise<void>
  /** The command never reaches the server: both sides are reset before it. Resolves when it happened. */
  cutBefore(match: Match, times?: number): Promise<void>
  /** From now on every command waits this long before it goes on, in order; 0 ends it. */
  delay(ms: number): void
  /** Connections from now on go to this Redis; those that are open are reset. */
  retarget(targetUrl: string): void
  /** Holds one command, and what follows it on its connection, until released. */
  holdBefore(match: Match): { held: Promise<void>; release(): void }
  stop(): Promise<void>
}

type Fault = 'close after' | 'silence after' | 'reset before' | 'hold before'

interface Rule {
  fault: Fault
  match: Match
  left: number
  happened: () => void
  /** Of a command that is held. */
  released: Promise<void>
}

/** From these on, replies do not follow commands one by one. */
const STREAMING = new Set(['subscribe', 'psubscribe', 'ssubscribe', 'monitor', 'sync', 'psync'])

class Link {
  readonly client: Socket
  readonly server: Socket
  readonly #rules: Rule[]
  readonly #delayMs: () => number
  readonly #commands = new FrameReader({ strings: true })
  readonly #replies = new FrameReader({ strings: false })
  /** What is to happen when the reply to each unanswered command comes, oldest first. */
  readonly #unanswered: (Rule | undefined)[] = []
  #forwarding: Promise<void> = Promise.resolve()
  #isStreaming = false
  #isSilent = false

  constructor(client: Socket, server: Socket, { rules, delayMs }: { rules: Rule[]; delayMs: () => number }) {
    this.client = client
    this.server = server
    this.#rules = rules
    this.#delayMs = delayMs
    client.on('data', (chunk: Buffer) => this.#onCommands(this.#commands.read(chunk)))
    server.on('data', (chunk: Buffer) => this.#onReplies(chunk))
    // What the client has sent before it went still reaches the server, as it would on a network.
    client.on('close', () => void this.#forwarding.then(() => this.server.end()))
    server.on('close', () => this.client.destroySoon())
    for (const socket of [client, server]) socket.on('error', () => {}).setNoDelay(true)
  }

  reset(): void {
    this.client.resetAndDestroy()
    this.server.resetAndDestroy()
  }

  pause(on: boolean): void {
    for (const socket of [this.client, this.server]) {
      if (on) socket.pause()
      else socket.resume()
    }
  }

  /** One after the other: a command that is held holds those behind it. */
  #onCommands(frames: Frame[]): void {
    for (const frame of frames) this.#forwarding = this.#forwarding.then(() => this.#forward(frame))
  }

  async #forward({ bytes, strings }: Frame): Promise<void> {
    if (this.server.destroyed) return
    const command = [(strings[0] ?? '').toLowerCase(), ...strings.slice(1)]
    const rule = this.#takeRule(command)
    if (rule?.fault === 'reset before') {
      this.reset()
      rule.happened()
      return
    }
    if (rule?.fault === 'hold before') {
      rule.happened()
      await rule.released
    }
    if (this.#delayMs() > 0) await sleep(this.#delayMs())
    if (STREAMING.has(command[0] ?? '')) this.#isStreaming = true
    this.#unanswered.push(rule)
    this.server.write(bytes)
  }

  /** One that has happened as often as it shall is let go of: there may be thousands in a long run. */
  #takeRule(command: string[]): Rule | undefined {
    const at = this.#rules.findIndex(({ match }) => match(command))
    const rule = this.#rules[at]
    if (rule === undefined) return undefined
    rule.left -= 1
    if (rule.left === 0) this.#rules.splice(at, 1)
    return rule
  }

  #onReplies(chunk: Buffer): void {
    if (this.#isStreaming) {
      this.client.write(chunk)
      return
    }
    for (const { bytes, type } of this.#replies.read(chunk)) {
      const rule = type === '>' ? undefined : this.#unanswered.shift()
      const isSwallowed = rule?.fault === 'close after' || rule?.fault === 'silence after'
      if (isSwallowed) {
        this.#isSilent = true
        if (rule.fault === 'close after') this.client.destroySoon()
        rule.happened()
      }
      if (!this.#isSilent) this.client.write(bytes)
    }
  }
}

/** A proxy before the Redis of this URL, on a free port. */
export async function openProxy(targetUrl: string): Promise<FaultProxy> {
  let target = new URL(targetUrl)
  let delayMs = 0
  const links = new Set<Link>()
  const rules: Rule[] = []
  let isBlackhole = false
  const listener = createServer({ pauseOnConnect: true }, (client) => {
    const server = connect({ host: target.hostname, port: Number(target.port || 6379) })
    const link = new Link(client, server, { rules, delayMs: () => delayMs })
    links.add(link)
    link.pause(isBlackhole)
    client.once('close', () => links.delete(link))
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const url = new URL(targetUrl)
  url.hostname = '127.0.0.1'
  url.port = String((listener.address() as AddressInfo).port)

  const addRule = (fault: Fault, match: Match, times: number, released = Promise.resolve()): Promise<void> =>
    new Promise((resolve) => {
      let happenedTimes = 0
      const happened = (): void => {
        happenedTimes += 1
        if (happenedTimes === times) resolve()
      }
      rules.push({ fault, match, left: times, happened, released })
    })
  const cut = (): void => links.forEach((link) => link.reset())
  const stop = async (): Promise<void> => {
    if (!listener.listening) return
    const closed = once(listener, 'close')
    listener.close()
    cut()
    await closed
  }
  return {
    url: url.href,
    connections: () => links.size,
    cut,
    blackhole(on) {
      isBlackhole = on
      for (const link of links) link.pause(on)
    },
    delay(ms) {
      delayMs = ms
    },
    retarget(to) {
      target = new URL(to)
      cut()
    },
    swallowReplyTo: (match, times = 1) => addRule('close after', match, times),
    swallowReplyKeepOpen: (match, times = 1) => addRule('silence after', match, times),
    cutBefore: (match, times = 1) => addRule('reset before', match, times),
    holdBefore(match) {
      let release = (): void => {}
      const released = new Promise<void>((resolve) => (release = resolve))
      return { held: addRule('hold before', match, 1, released), release }
    },
    stop,
  }
}
