import type { Command } from 'commander'
import type { GroupSettingsChange, Setting, SettingsChange, StreamSettings } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { exactDuration, LONGEST_AGE_MS, parseDuration } from '../duration.ts'
import { usageError, wrongValue } from '../exit.ts'
import { fittingTable } from '../fitting-table.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine } from '../output.ts'
import { similarTo } from '../similar.ts'
import { exactSize, parseSize } from '../size.ts'
import { parseCount } from '../whole-number.ts'

const HELP = `
  retention.age       how long settled entries are kept
  retention.bytes     how large it may be before settled entries go earlier
  retention.entries   how many entries it may hold before they do
  dead.age            how long dead letters are kept
  backlog.max         most unsettled jobs of a group; at that, publishers wait
  <group>.lease       how long a dead worker's jobs stay unclaimed
  <group>.deliveries  deliveries without an outcome before a job is dead
  <group>.record      outcomes: keep for 7 days how each job ended, for audit

What a group has not settled is kept whatever the retention says. 'key=' and 'key=default' go back to the default. All
changes of one command are made, or none; running workers and producers follow within a second.

Examples:
  $ millrace settings orders
  $ millrace settings orders retention.age=48h retention.bytes=2GiB
  $ millrace settings orders billing.lease=20s billing.deliveries=5
  $ millrace settings orders billing.record=outcomes
  $ millrace settings orders retention.entries=
  $ millrace settings orders backlog.max=100000
  $ millrace settings orders --json | jq .retention`

/** How a setting is written and shown. */
interface Kind {
  readonly read: (key: string, text: string) => number
  readonly show: (value: number) => string
}

const AGE: Kind = {
  read: (key, text) => parseDuration(key, text, { minMs: 1000, mostMs: LONGEST_AGE_MS }),
  show: exactDuration,
}
const SIZE: Kind = { read: (key, text) => parseSize(key, text), show: exactSize }
const LEASE: Kind = {
  read: (key, text) => parseDuration(key, text, { minMs: 500, mostMs: 86_400_000 }),
  show: exactDuration,
}
const count = (most: number): Kind => ({ read: (key, text) => parseCount(key, text, { most }), show: String })

const STREAM_KEYS = {
  'retention.age': { kind: AGE, of: (settings: StreamSettings) => settings.retention.maxAgeMs },
  'retention.bytes': { kind: SIZE, of: (settings: StreamSettings) => settings.retention.maxBytes },
  'retention.entries': { kind: count(1e15 - 1), of: (settings: StreamSettings) => settings.retention.maxEntries },
  'dead.age': { kind: AGE, of: (settings: StreamSettings) => settings.dead.maxAgeMs },
  'backlog.max': { kind: count(1e12), of: (settings: StreamSettings) => settings.maxBacklog },
} as const

const GROUP_KEYS = { lease: LEASE, deliveries: count(1000) } as const
const GROUP_NAMES = [...Object.keys(GROUP_KEYS), 'record']

export function registerSettings(program: Command, context: CliContext): void {
  program
    .command('settings')
    .description('show the settings of a stream, or change them')
    .argument('<stream>', 'the stream')
    .argument('[changes...]', 'what to change, as key=value')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(async (stream: string, changes: string[], { json }: { json?: true }) => {
      const change = parseChanges(changes)
      const stand = await withInspector(context, ({ settings }) =>
        changes.length === 0 ? settings.get(stream) : settings.set(stream, change),
      )
      context.stdout.write(json === true ? jsonLine(stand) : `${settingsLines(context.stdout, stand).join('\n')}\n`)
    })
}

/** @throws CliError for a key that there is not, a value that it cannot have, or a key that is named twice. */
export function parseChanges(texts: readonly string[]): SettingsChange {
  const stream = new Map<string, number | null>()
  const groups = new Map<string, GroupSettingsChange>()
  const seen = new Set<string>()
  for (const text of texts) {
    const { key, value } = split(text)
    if (seen.has(key)) throw usageError(`expected each setting once, got ${key} twice`)
    seen.add(key)
    const wanted = (kind: Kind) => (value === '' || value === 'default' ? null : kind.read(key, value))
    if (Object.hasOwn(STREAM_KEYS, key)) {
      stream.set(key, wanted(STREAM_KEYS[key as keyof typeof STREAM_KEYS].kind))
      continue
    }
    const [, group, name] = /^(.+)\.(lease|deliveries|record)$/.exec(key) ?? []
    if (group === undefined) throw unknownKey(key)
    const change =
      name === 'record'
        ? { record: recordOf(key, value) }
        : name === 'lease'
          ? { leaseMs: wanted(GROUP_KEYS.lease) }
          : { maxDeliveries: wanted(GROUP_KEYS.deliveries) }
    groups.set(group, { ...groups.get(group), ...change })
  }
  return {
    retention: {
      ...named('maxAgeMs', stream.get('retention.age')),
      ...named('maxBytes', stream.get('retention.bytes')),
      ...named('maxEntries', stream.get('retention.entries')),
    },
    dead: named('maxAgeMs', stream.get('dead.age')),
    ...named('maxBacklog', stream.get('backlog.max')),
    groups: Object.fromEntries(groups),
  }
}

function recordOf(key: string, value: string): 'outcomes' | null {
  if (value === '' || value === 'default') return null
  if (value === 'outcomes') return value
  throw wrongValue(key, 'outcomes, or nothing to end it', value)
}

function split(text: string): { key: string; value: string } {
  const at = text.indexOf('=')
  if (at < 1) throw usageError(`expected a change such as retention.age=48h, got ${JSON.stringify(text.slice(0, 60))}`)
  return { key: text.slice(0, at), value: text.slice(at + 1) }
}

function named(name: string, value: number | null | undefined): Record<string, number | null> {
  return value === undefined ? {} : { [name]: value }
}

function unknownKey(key: string): Error {
  const dot = key.lastIndexOf('.')
  const ofGroup = dot > 0 ? GROUP_NAMES.map((name) => `${key.slice(0, dot)}.${name}`) : []
  const meant = similarTo(key, [...Object.keys(STREAM_KEYS), ...ofGroup])
  const known = [...Object.keys(STREAM_KEYS), ...GROUP_NAMES.map((name) => `<group>.${name}`)].join(', ')
  const hint = meant === undefined ? `there are: ${known}` : `did you mean ${meant}?`
  return usageError(`unknown setting ${JSON.stringify(key.slice(0, 80))} (${hint})`)
}

function settingsLines(stdout: NodeJS.WriteStream, settings: StreamSettings): string[] {
  const rows = Object.entries(STREAM_KEYS).map(([key, { kind, of }]) => row(key, of(settings), kind))
  for (const { group, leaseMs, maxDeliveries, record } of settings.groups) {
    rows.push(row(`${group}.lease`, leaseMs, GROUP_KEYS.lease))
    rows.push(row(`${group}.deliveries`, maxDeliveries, GROUP_KEYS.deliveries))
    rows.push([`${group}.record`, record.value ?? 'nothing', 'nothing', record.isSet ? 'yes' : 'no'])
  }
  return fittingTable(
    stdout,
    [{ title: 'setting', least: 20 }, { title: 'value' }, { title: 'default' }, { title: 'set' }],
    rows,
  )
}

function row(key: string, setting: Setting, { show }: Kind): string[] {
  const text = (value: number | null) => (value === null ? 'unlimited' : show(value))
  return [key, text(setting.value), text(setting.default), setting.isSet ? 'yes' : 'no']
}
