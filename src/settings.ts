import type { Asking } from './asking.ts'
import { existingStream } from './existing.ts'
import { OptionError } from './errors.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { checkGroupName, checkStreamName } from './redis/keys.ts'
import {
  readSettings,
  storeSettings,
  RECORDS,
  type GroupSetting,
  type RecordKind,
  type SettingsSeen,
  type SettingsWritten,
  type StreamSetting,
} from './redis/settings.ts'
import { DEFAULT_RETENTION } from './trimmer.ts'

/** One setting as it stands. */
export interface Setting {
  /** What counts now; null is no bound. */
  readonly value: number | null
  /** What counts where nothing is set; null is no bound. */
  readonly default: number | null
  /** Whether a value is stored. Of a group its first worker stores what it was told, or the default. */
  readonly isSet: boolean
}

/** All settings of a stream. Durations are in ms, sizes in bytes. */
export interface StreamSettings {
  readonly stream: string
  /** Within these settled entries are kept; what no group may lose is kept beyond them. */
  readonly retention: { readonly maxAgeMs: Setting; readonly maxBytes: Setting; readonly maxEntries: Setting }
  /** How long dead letters are kept. */
  readonly dead: { readonly maxAgeMs: Setting }
  /** Jobs in the stream that a group has not settled: while one has as many, publishers wait or are refused. */
  readonly maxBacklog: Setting
  readonly groups: readonly GroupSettingsStand[]
}

export interface GroupSettingsStand {
  readonly group: string
  /** How long a job of a worker that went away stays unclaimed. */
  readonly leaseMs: Setting
  /** Deliveries without an outcome before a job is dead. */
  readonly maxDeliveries: Setting
  /** What it keeps of each job that has ended: `outcomes` is how, for an audit to name every job. Null is nothing. */
  readonly record: RecordSetting
}

/** As `Setting`, of what is no number. */
export interface RecordSetting {
  readonly value: RecordKind | null
  readonly default: null
  readonly isSet: boolean
}

/** What a group may be told. */
export interface GroupSettingsChange {
  /** 500 ms to 24 h. */
  readonly leaseMs?: number | null
  /** 1 to 1000. */
  readonly maxDeliveries?: number | null
  /** `outcomes`: how each job ended is kept for 7 days, some 100 bytes a job, at most a million for each hour of publishing. */
  readonly record?: RecordKind | null
}

/** What to change; `null` goes back to the default, what is not named stays. */
export interface SettingsChange {
  readonly retention?: {
    /** At least 1000. */
    readonly maxAgeMs?: number | null
    readonly maxBytes?: number | null
    readonly maxEntries?: number | null
  }
  readonly dead?: {
    /** At least 1000. */
    readonly maxAgeMs?: number | null
  }
  /** 1 to 10^12. Producers see it within a second; what is in the stream already stays. */
  readonly maxBacklog?: number | null
  /** By the name of the group. */
  readonly groups?: Readonly<Record<string, GroupSettingsChange>>
}

/** How long dead letters are kept where the stream's settings say nothing. */
export const DEFAULT_DEAD_AGE_MS = 30 * 24 * 3_600_000

/** What a stream's workers follow: one truth in Redis, in effect at once. */
export class Settings {
  readonly #asking: Asking

  constructor(asking: Asking) {
    this.#asking = asking
  }

  /** @throws MillraceError ERR_NOT_FOUND if there is no such stream; RedisError. */
  async get(stream: string): Promise<StreamSettings> {
    checkStreamName(stream)
    return this.#asking.run(`the settings of ${stream}`, async (client) => {
      const { groups } = await existingStream(client, stream)
      return standing(stream, await readSettings(client, stream, [...groups].sort()))
    })
  }

  /**
   * Changes settings, all of them or none. Trimming follows them from its next step on, workers within a pulse (1 s), and
   * producers within a second. A stream that is to have a bound before its first job gets a group first: `groups.create`.
   * @returns all settings as they are then.
   * @throws OptionError on an unknown or impossible setting; ERR_NOT_FOUND if there is no such stream; UnknownGroupError.
   */
  async set(stream: string, change: SettingsChange): Promise<StreamSettings> {
    checkStreamName(stream)
    const written = checkChange(change)
    await this.#asking.run(`the settings of ${stream}`, async (client) => {
      await existingStream(client, stream)
      await storeSettings(client, stream, written)
    })
    return this.get(stream)
  }
}

/** No span of time is longer than a hundred years. */
const MOST_MS = 100 * 365 * 24 * 3_600_000

const STREAM_DEFAULTS: Readonly<Record<StreamSetting, number | null>> = {
  'retention:maxAgeMs': DEFAULT_RETENTION.maxAgeMs,
  'retention:maxBytes': DEFAULT_RETENTION.maxBytes,
  'retention:maxEntries': null,
  'dead:maxAgeMs': DEFAULT_DEAD_AGE_MS,
  maxBacklog: null,
}

const GROUP_DEFAULTS: Readonly<Record<GroupSetting, number>> = { leaseMs: 10_000, maxDeliveries: 3 }

/** What a group may be told, here as in the options of a worker. */
export const LEASE_MS = { min: 500, max: 24 * 3_600_000 }
export const DELIVERIES = { min: 1, max: 1000 }

const LIMITS: Readonly<Record<StreamSetting | GroupSetting, { min: number; max?: number }>> = {
  'retention:maxAgeMs': { min: 1000, max: MOST_MS },
  'retention:maxBytes': { min: 1, max: 1e15 - 1 },
  'retention:maxEntries': { min: 1, max: 1e15 - 1 },
  'dead:maxAgeMs': { min: 1000, max: MOST_MS },
  maxBacklog: { min: 1, max: 1e12 },
  leaseMs: LEASE_MS,
  maxDeliveries: DELIVERIES,
}

/** @throws OptionError */
export function checkChange(change: SettingsChange): SettingsWritten {
  refuseUnknownKeys('settings', change, ['retention', 'dead', 'maxBacklog', 'groups'])
  const stream = new Map<StreamSetting, number | undefined>()
  const groups = new Map<string, Map<GroupSetting, number>>()
  const records = new Map<string, RecordKind | undefined>()
  const { retention = {}, dead = {} } = change
  refuseUnknownKeys('retention', retention, ['maxAgeMs', 'maxBytes', 'maxEntries'])
  refuseUnknownKeys('dead', dead, ['maxAgeMs'])
  const given = [
    ['retention:maxAgeMs', retention.maxAgeMs],
    ['retention:maxBytes', retention.maxBytes],
    ['retention:maxEntries', retention.maxEntries],
    ['dead:maxAgeMs', dead.maxAgeMs],
    ['maxBacklog', change.maxBacklog],
  ] as const
  for (const [name, value] of given) {
    if (value !== undefined) stream.set(name, value === null ? undefined : checked(name.replace(':', '.'), name, value))
  }
  for (const [group, values] of Object.entries(checkedGroups(change.groups))) {
    checkGroupName(group)
    refuseUnknownKeys(`group ${group}`, values, ['leaseMs', 'maxDeliveries', 'record'])
    groups.set(group, checkedGroup(group, values))
    const { record } = values
    if (record !== undefined) {
      records.set(group, record === null ? undefined : oneOf(`${group}.record`, record, RECORDS))
    }
  }
  return { stream, groups, records }
}

function checkedGroups(groups: SettingsChange['groups'] = {}): NonNullable<SettingsChange['groups']> {
  if (typeof groups === 'object' && groups !== null && !Array.isArray(groups)) return groups
  throw new OptionError(`expected \`groups\` to be an object of settings by group, got ${shown(groups)}`)
}

/**
 * A group's default is stored, and not taken away: workers that run follow what is stored, and with nothing there those that
 * were told different leases would go apart until the next one starts.
 */
function checkedGroup(group: string, values: GroupSettingsChange): Map<GroupSetting, number> {
  const written = new Map<GroupSetting, number>()
  for (const name of ['leaseMs', 'maxDeliveries'] as const) {
    const value = values[name]
    if (value === undefined) continue
    written.set(name, value === null ? GROUP_DEFAULTS[name] : checked(`${group}.${name}`, name, value))
  }
  return written
}

function checked(shownAs: string, name: StreamSetting | GroupSetting, value: number): number {
  return wholeNumber(shownAs, value, { or: 0, ...LIMITS[name] })
}

function standing(stream: string, seen: SettingsSeen): StreamSettings {
  const one = (name: StreamSetting) => stand(seen.stream.get(name), STREAM_DEFAULTS[name])
  return {
    stream,
    retention: {
      maxAgeMs: one('retention:maxAgeMs'),
      maxBytes: one('retention:maxBytes'),
      maxEntries: one('retention:maxEntries'),
    },
    dead: { maxAgeMs: one('dead:maxAgeMs') },
    maxBacklog: one('maxBacklog'),
    groups: [...seen.groups].map(([group, values]) => ({
      group,
      leaseMs: stand(values.get('leaseMs'), GROUP_DEFAULTS.leaseMs),
      maxDeliveries: stand(values.get('maxDeliveries'), GROUP_DEFAULTS.maxDeliveries),
      record: { value: seen.records.get(group) ?? null, default: null, isSet: seen.records.has(group) },
    })),
  }
}

function stand(stored: number | undefined, or: number | null): Setting {
  return { value: stored ?? or, default: or, isSet: stored !== undefined }
}
