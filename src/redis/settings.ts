import type { Redis } from 'ioredis'
import { UnknownGroupError } from '../errors.ts'
import { didYouMean } from '../options.ts'
import { withoutArguments } from './faults.ts'
import { settingsKey } from './keys.ts'
import { asArray, asText } from './replies.ts'
import { run } from './scripts/script.ts'
import { writeSettings } from './scripts/settings.ts'

/** Settings of a stream and its groups: fields of one hash, which every worker follows. */

export const STREAM_SETTINGS = [
  'retention:maxAgeMs',
  'retention:maxBytes',
  'retention:maxEntries',
  'dead:maxAgeMs',
  'maxBacklog',
] as const
export const GROUP_SETTINGS = ['leaseMs', 'maxDeliveries'] as const

export type StreamSetting = (typeof STREAM_SETTINGS)[number]
export type GroupSetting = (typeof GROUP_SETTINGS)[number]

/** The setting of a group that is no number: what it records of its jobs. */
export const RECORD_SETTING = 'record'
/** What it may be. */
export const RECORDS = ['outcomes'] as const
export type RecordKind = (typeof RECORDS)[number]

/** The stored values; undefined where there is none, or none that is a number. */
export interface SettingsSeen {
  readonly stream: ReadonlyMap<StreamSetting, number>
  readonly groups: ReadonlyMap<string, ReadonlyMap<GroupSetting, number>>
  /** What the groups record, of those that do. */
  readonly records: ReadonlyMap<string, RecordKind>
}

export async function readSettings(client: Redis, stream: string, groups: readonly string[]): Promise<SettingsSeen> {
  const fields = [
    ...STREAM_SETTINGS,
    ...groups.flatMap((group) => [...GROUP_SETTINGS, RECORD_SETTING].map((name) => groupField(group, name))),
  ]
  const stored = await client.hmget(settingsKey(stream), ...fields).catch((error: unknown) => {
    throw withoutArguments(error)
  })
  const texts = new Map(fields.map((field, at) => [field, stored[at]]))
  const values = new Map(fields.map((field, at) => [field, countOf(stored[at])]))
  const pick = <Name extends string>(names: readonly Name[], fieldOf: (name: Name) => string) => {
    const found = names.map((name) => [name, values.get(fieldOf(name))] as const)
    return new Map(found.filter((pair): pair is [Name, number] => pair[1] !== undefined))
  }
  return {
    stream: pick(STREAM_SETTINGS, (name) => name),
    groups: new Map(groups.map((group) => [group, pick(GROUP_SETTINGS, (name) => groupField(group, name))])),
    records: new Map(
      groups.flatMap((group) => {
        const kind = RECORDS.find((one) => one === texts.get(groupField(group, RECORD_SETTING)))
        return kind === undefined ? [] : [[group, kind] as const]
      }),
    ),
  }
}

/** What shall be stored; undefined takes a setting away. */
export interface SettingsWritten {
  readonly stream: ReadonlyMap<StreamSetting, number | undefined>
  readonly groups: ReadonlyMap<string, ReadonlyMap<GroupSetting, number>>
  /** By group; undefined takes it away. Only of groups that are in `groups` too. */
  readonly records: ReadonlyMap<string, RecordKind | undefined>
}

/** @throws UnknownGroupError if the stream lacks one of the groups. Nothing was written then. */
export async function storeSettings(client: Redis, stream: string, written: SettingsWritten): Promise<void> {
  const names = [...written.groups.keys()]
  const pairs = [...written.stream].flatMap(([name, value]) => [name, value ?? ''])
  for (const [group, values] of written.groups) {
    for (const [name, value] of values) pairs.push(groupField(group, name), value)
  }
  for (const [group, kind] of written.records) pairs.push(groupField(group, RECORD_SETTING), kind ?? '')
  const reply = await run(client, writeSettings, [stream, settingsKey(stream)], [names.length, ...names, ...pairs])
  const [how, group = '', ...groups] = asArray(reply).map(asText)
  if (how === 'unknown') throw new UnknownGroupError({ stream, group, groups }, didYouMean(group, groups))
}

/** The beginning of every field that is of this group. */
export function groupFields(group: string): string {
  return `group:${group}:`
}

function groupField(group: string, name: string): string {
  return `${groupFields(group)}${name}`
}

function countOf(stored: string | null | undefined): number | undefined {
  return stored !== null && stored !== undefined && /^\d{1,15}$/.test(stored) ? Number(stored) : undefined
}
