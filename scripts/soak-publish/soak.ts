import { setTimeout as sleep } from 'node:timers/promises'
import { openServer } from '../../test/helpers/controlled-server.ts'
import { openProxy } from '../../test/helpers/network.ts'
import {
  addBallast,
  DISTURBING,
  type EndFault,
  type Fault,
  type Ground,
  LINGERING,
  openAdmin,
  SLOW_TO_LOAD,
  STOPPING,
} from '../../test/helpers/publish-faults.ts'
import { Ledger } from '../../test/helpers/publish-ledger.ts'
import { type Load, readStream, STREAM, watchSends } from '../../test/helpers/publish-load.ts'
import { Chance } from './chance.ts'
import { openLoads } from './loads.ts'
import type { SoakOptions } from './options.ts'
import type { SoakReport } from './report.ts'

/** What a publish may be late by, with Redis, producers and proxy on the same cores. */
const MARGIN_MS = 15_000
/** After so many faults everything comes to rest, and is judged. */
const FAULTS_A_CHECK = 6
const LAST_FAULTS = 30
/** What nothing may grow beyond, however long it goes on: producers that rest need little, and the ledger bytes a job. */
const MOST_REST_MIB = 150

const NETWORK: Readonly<Record<string, Fault>> = {
  'is behind a black hole': STOPPING['is behind a black hole'],
  ...DISTURBING,
  ...LINGERING,
}
const SERVER: Readonly<Record<string, Fault>> = Object.fromEntries(
  Object.entries(STOPPING).filter(([name]) => !(name in NETWORK)),
)

/** These need a server that answers, so they are not made while it does not. */
const ALONE: readonly string[] = ['loses its clients', 'forgets its scripts']
const NETWORK_NAMES = Object.keys(NETWORK)
const BESIDE_NAMES = NETWORK_NAMES.filter((name) => !ALONE.includes(name))

export class Soak {
  readonly #ground: Ground
  readonly #ledger = new Ledger()
  readonly #chance: Chance
  readonly #options: SoakOptions
  readonly #loads: Load[]
  readonly #faults = new Map<string, number>()
  readonly #lastFaults: string[] = []
  readonly #startedMs = performance.now()
  readonly #unwatch: () => void
  /** Heap at each judgement, when nothing waits. */
  readonly #restMib: number[] = []
  #checks = 0
  #readTo = '0-0'
  #peakRssMib = 0
  #isEnded = false

  static async open(options: SoakOptions): Promise<Soak> {
    const server = await openServer(SLOW_TO_LOAD)
    const admin = openAdmin(server.url)
    const proxy = await openProxy(server.url)
    await addBallast(admin)
    return new Soak({ server, admin, proxy }, options)
  }

  private constructor(ground: Ground, options: SoakOptions) {
    this.#ground = ground
    this.#options = options
    this.#chance = new Chance(options.seed)
    this.#unwatch = watchSends(this.#ledger)
    this.#loads = openLoads(this.#ledger, ground.proxy.url)
  }

  /** Makes no more faults; what was published is judged. */
  end(): void {
    this.#isEnded = true
  }

  async run(): Promise<SoakReport> {
    const watch = setInterval(() => this.#look(), 250)
    while (!this.#isOver()) {
      for (const load of this.#loads) load.start()
      for (let at = 0; at < FAULTS_A_CHECK && !this.#isOver(); at++) await this.#round()
      await this.#judge()
    }
    clearInterval(watch)
    return this.#report()
  }

  async close(): Promise<void> {
    this.#unwatch()
    await Promise.all(this.#loads.map((load) => load.stop()))
    await Promise.all(this.#loads.map((load) => load.close(0)))
    this.#ground.admin.disconnect()
    await this.#ground.proxy.stop()
    await this.#ground.server.remove()
  }

  #isOver(): boolean {
    return this.#isEnded || this.#ledger.violated > 0 || this.#sinceStart() >= this.#options.forMs
  }

  /** A fault, or one of the server and one of the network at once; now and then a producer is closed in the middle of it. */
  async #round(): Promise<void> {
    const chance = this.#chance
    const forMs = chance.isTrue(0.1) ? chance.between(5000, 8000) : chance.between(10, 2500)
    const calmMs = chance.between(20, 1000)
    const isBoth = chance.isTrue(0.25)
    const isOfServer = isBoth || chance.isTrue(0.5)
    const [server, network] = [chance.of(Object.keys(SERVER)), chance.of(isBoth ? BESIDE_NAMES : NETWORK_NAMES)]
    const closing = chance.isTrue(0.4) ? chance.of(this.#loads) : undefined
    const closeMs = chance.between(1, 1000)
    const names = [...(isOfServer ? [server] : []), ...(isBoth || !isOfServer ? [network] : [])]
    const ends: EndFault[] = []
    for (const name of names) {
      this.#note(name, forMs)
      const begin = SERVER[name] ?? NETWORK[name]
      if (begin !== undefined) ends.push(await begin(this.#ground))
    }
    const closed = closing?.replace(closeMs)
    await sleep(forMs)
    for (const end of ends) await end()
    await closed
    await sleep(calmMs)
  }

  #note(name: string, forMs: number): void {
    this.#faults.set(name, (this.#faults.get(name) ?? 0) + 1)
    const said = `at ${(this.#sinceStart() / 1000).toFixed(1)} s Redis ${name}, for ${forMs} ms`
    process.stderr.write(`${said}\n`)
    this.#lastFaults.push(said)
    if (this.#lastFaults.length > LAST_FAULTS) this.#lastFaults.shift()
  }

  /** Everything comes to rest; what has been looked at is then removed, so that the run needs no more of Redis the longer it is. */
  async #judge(): Promise<void> {
    await Promise.all(this.#loads.map((load) => load.stop()))
    while (this.#ledger.open > 0) await sleep(20)
    const { admin } = this.#ground
    this.#readTo = await readStream(admin, this.#ledger, this.#readTo)
    this.#ledger.checkMissing()
    if (this.#readTo !== '0-0') await admin.xtrim(STREAM, 'MINID', this.#readTo)
    this.#checks += 1
    this.#sayMemory()
  }

  /** What is left when nothing waits: what would grow here would grow for ever. */
  #sayMemory(): void {
    globalThis.gc?.()
    const { heapUsed, external } = process.memoryUsage()
    this.#restMib.push(Math.round((heapUsed + external) / 2 ** 20))
    process.stderr.write(`at rest: ${this.#restMib.at(-1)} MiB of heap\n`)
  }

  #look(): void {
    this.#ledger.checkOverdue(performance.now(), MARGIN_MS)
    this.#peakRssMib = Math.max(this.#peakRssMib, Math.round(process.memoryUsage.rss() / 2 ** 20))
  }

  #sinceStart(): number {
    return performance.now() - this.#startedMs
  }

  #report(): SoakReport {
    const { counts, violated, violations, lanes } = this.#ledger
    const isLarge = this.#peakRssMib > this.#options.mostRssMib
    const large = isLarge ? [`this process had ${this.#peakRssMib} MiB, more than ${this.#options.mostRssMib}`] : []
    const restMib = Math.min(...this.#restMib.slice(-3))
    if (restMib > MOST_REST_MIB)
      large.push(`${restMib} MiB of heap stay when nothing waits, more than ${MOST_REST_MIB}`)
    return {
      elapsedMs: this.#sinceStart(),
      counts,
      lanes,
      checks: this.#checks,
      faults: this.#faults,
      peakRssMib: this.#peakRssMib,
      restMib: this.#restMib,
      violated: violated + large.length,
      violations: [...violations, ...large],
      lastFaults: this.#lastFaults,
    }
  }
}
