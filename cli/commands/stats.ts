import type { Command } from 'commander'
import { setTimeout as sleep } from 'node:timers/promises'
import type { GroupHistory, GroupStats, Inspector, ScheduledStats, StreamStats } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { parseDuration } from '../duration.ts'
import { codeOf, EXIT, exitCodeOf } from '../exit.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { abandonedLines, pausedLines } from '../group-text.ts'
import { withInspector } from '../inspector.ts'
import { countText, jsonLine, momentText, plural, printable, spanText } from '../output.ts'
import { Screen } from '../screen.ts'
import { hourLines } from '../sparkline.ts'
import { onStopSignals } from '../stop-signals.ts'

interface StatsFlags {
  readonly watch?: number | true
  readonly json?: boolean
}

const WATCH_MS = 2000

const EXAMPLES = `
lag            entries not yet delivered to the group; ? where Redis does not know (lag s is known always)
lag s          seconds since the oldest of them was published
pending        entries delivered and not settled; oldest is the age of the oldest of them
scheduled      retries that wait for their time; jobs published with a delay have a line of their own
dead           dead letters of the group
slots busy     handlers that run, of those that could run at once, over the workers of the last 5 seconds
jobs/s         jobs that these workers complete a second
history since  when the oldest entry of the stream was published

Of one stream also what became of the jobs of the last hour, by the minute in which they were published: completed, and
failed, which are attempts to be tried again and dead letters; and skipped, where the group does not want all jobs.

A terminal that is too narrow for all columns is shown the most important ones.

A job is, for each group, in exactly one of: lag, pending, scheduled, dead, or settled.

Examples:
  $ millrace stats
  $ millrace stats orders --watch
  $ millrace stats --watch 10s
  $ millrace stats orders --json | jq '.streams[].groups[] | {group, lag, pending}'`

export function registerStats(program: Command, context: CliContext): void {
  program
    .command('stats')
    .description('show how streams and groups stand')
    .argument('[stream]', 'one stream only')
    .option('--watch [interval]', 'go on until Ctrl-C, every 2s or as given', (text) =>
      parseDuration('--watch', text, { minMs: 100 }),
    )
    .option('--json', 'print JSON; with --watch one line each time')
    .addHelpText('after', EXAMPLES)
    .action((stream: string | undefined, { watch, json = false }: StatsFlags, command: Command) =>
      withInspector(context, async (inspector) => {
        const first = await lookAt(inspector, stream)
        if (watch === undefined) return printOnce(context, first, { json, command })
        await new Watch(context, inspector, { stream, json, command }).run(first, watch === true ? WATCH_MS : watch)
      }),
    )
}

/** What is shown at once: how streams stand, and of a stream that was named the last hour of its groups. */
interface Seen {
  readonly streams: readonly StreamStats[]
  readonly history: readonly GroupHistory[] | undefined
}

async function lookAt(inspector: Inspector, stream: string | undefined): Promise<Seen> {
  const streams = await inspector.stats(stream)
  if (stream === undefined) return { streams, history: undefined }
  const history: GroupHistory[] = []
  for (const { group } of streams[0]?.groups ?? []) {
    const found = await inspector.history(stream, group).catch((error: unknown) => {
      // Removed in this moment, or of a name that no worker of ours can have: no reason to show nothing.
      if (!['ERR_UNKNOWN_GROUP', 'ERR_NAME'].includes(codeOf(error) ?? '')) throw error
    })
    if (found !== undefined) history.push(found)
  }
  return { streams, history }
}

function printOnce(context: CliContext, seen: Seen, { json, command }: { json: boolean; command: Command }): void {
  if (json) context.stdout.write(documentOf(seen))
  else if (seen.streams.length === 0) context.say(NO_STREAMS)
  else context.stdout.write(`${seenLines(context, seen).join('\n')}\n`)
  if (!json) for (const line of warningLines(command, seen.streams)) context.say(line)
}

function seenLines(context: CliContext, { streams, history = [] }: Seen): string[] {
  return [
    ...statsLines(context, streams),
    ...hourLines(history, { env: context.env, columns: context.stdout.columns || 80 }),
  ]
}

interface WatchAsked {
  readonly stream: string | undefined
  readonly json: boolean
  readonly command: Command
}

/** Goes on until Ctrl-C, also while Redis is away: somebody who watches wants to see it come back. */
class Watch {
  readonly #context: CliContext
  readonly #inspector: Inspector
  readonly #asked: WatchAsked
  #screen: Screen | undefined
  #shown: string[] = []
  #warnings: string[] = []

  constructor(context: CliContext, inspector: Inspector, asked: WatchAsked) {
    this.#context = context
    this.#inspector = inspector
    this.#asked = asked
  }

  async run(first: Seen, everyMs: number): Promise<void> {
    const ended = new AbortController()
    const stopListening = onStopSignals(
      () => ended.abort(),
      (exitCode) => this.#context.exitNow(exitCode),
    )
    if (this.#context.stdout.isTTY && !this.#asked.json) this.#screen = new Screen(this.#context.stdout)
    try {
      this.#show(first)
      while (!ended.signal.aborted) {
        await sleep(everyMs, undefined, { signal: ended.signal }).catch(() => {})
        if (!ended.signal.aborted) await Promise.race([this.#step(ended.signal), aborted(ended.signal)])
      }
    } finally {
      stopListening()
      this.#screen?.close()
    }
  }

  async #step(signal: AbortSignal): Promise<void> {
    try {
      const seen = await lookAt(this.#inspector, this.#asked.stream)
      if (!signal.aborted) this.#show(seen)
    } catch (error) {
      if (signal.aborted) return
      // What Redis does may pass; that the stream is gone too, but then nothing is there to show.
      if (exitCodeOf(error) !== EXIT.redis) throw error
      this.#complain(`${(error as Error).message}; trying again`)
    }
  }

  #show(seen: Seen): void {
    if (this.#asked.json) {
      this.#context.stdout.write(documentOf(seen))
      return
    }
    this.#shown = seen.streams.length === 0 ? [NO_STREAMS] : seenLines(this.#context, seen)
    this.#warnings = warningLines(this.#asked.command, seen.streams)
    if (this.#screen === undefined) {
      this.#context.stdout.write(`${this.#shown.join('\n')}\n\n`)
      for (const line of this.#warnings) this.#context.say(line)
    } else this.#draw(`${new Date().toLocaleTimeString()}  Ctrl-C ends`)
  }

  #complain(message: string): void {
    if (this.#screen === undefined) this.#context.say(message)
    else this.#draw(message)
  }

  #draw(note: string): void {
    const [titles = '', ...rows] = this.#shown
    this.#screen?.draw([
      { text: titles, style: 'bold' },
      ...rows.map((text) => ({ text })),
      ...this.#warnings.map((text) => ({ text, style: 'yellow' as const })),
      { text: note, style: 'dim' },
    ])
  }
}

const NO_STREAMS = `no streams yet; publish a first job with: millrace publish orders send-receipt '{"order":42}'`

const COLUMNS: readonly FittingColumn[] = [
  { title: 'stream', least: 12 },
  { title: 'group', least: 16 },
  { title: 'lag', align: 'right' },
  { title: 'lag s', align: 'right', spare: 2 },
  { title: 'pending', align: 'right' },
  { title: 'oldest', align: 'right', spare: 4 },
  { title: 'scheduled', align: 'right' },
  { title: 'dead', align: 'right' },
  { title: 'workers', align: 'right' },
  { title: 'slots busy', align: 'right', spare: 3 },
  { title: 'jobs/s', align: 'right' },
  { title: 'history since', spare: 5 },
]

function statsLines({ stdout }: CliContext, streams: readonly StreamStats[]): string[] {
  const rows = streams.flatMap((stats) => {
    const { entries, oldestEntryMs, groups, scheduled } = stats
    const stream = stats.paused === null ? stats.stream : `${stats.stream} (paused)`
    const since = oldestEntryMs === null ? '-' : momentText(oldestEntryMs)
    const none = [stream, `(no group yet; ${plural(entries, 'entry', 'entries')})`]
    const ofGroups = groups.length === 0 ? [none] : groups.map((group) => [stream, ...cellsOf(group), since])
    return scheduled === 0 ? ofGroups : [...ofGroups, [stream, `(${delayedText(stats)})`]]
  })
  return fittingTable(stdout, COLUMNS, rows)
}

/** Jobs that were published with a delay: no group has them yet. */
function delayedText({ scheduled, overdueSeconds, setAside }: ScheduledStats): string {
  const late = overdueSeconds > 0 ? `, the first due ${spanText(overdueSeconds)} ago` : ''
  return `${plural(scheduled, 'delayed job')} scheduled${late}${setAside > 0 ? `, ${countText(setAside)} set aside` : ''}`
}

/** What an operator should look at. */
function warningLines(command: Command, streams: readonly StreamStats[]): string[] {
  return streams.flatMap(({ stream, paused, groups }) => [
    ...pausedLines(command, { stream, paused, groups }),
    ...groups
      .filter(({ setAside }) => setAside > 0)
      .map(({ group, setAside }) =>
        printable(
          `group ${group} of ${stream}: ${plural(setAside, 'retry', 'retries')} could not be moved and ${setAside === 1 ? 'stands' : 'stand'} aside`,
        ),
      ),
    ...abandonedLines(command, stream, groups),
  ])
}

function cellsOf(stats: GroupStats): string[] {
  return [
    stats.paused === null ? stats.group : `${stats.group} (paused)`,
    stats.lag === null ? '?' : String(stats.lag),
    stats.lagSeconds.toFixed(1),
    String(stats.pending),
    stats.pending === 0 ? '-' : spanText(stats.oldestPendingSeconds),
    String(stats.scheduled),
    String(stats.dead),
    String(stats.workers),
    `${stats.running}/${stats.slots}`,
    stats.perSecond.toFixed(1),
  ]
}

function documentOf({ streams, history }: Seen): string {
  return jsonLine({ at: new Date().toISOString(), streams, ...(history === undefined ? {} : { history }) })
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
