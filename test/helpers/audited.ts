import type { Redis } from 'ioredis'
import { expect } from 'vitest'
import type { Asking } from '../../src/asking.ts'
import { auditStream, type AuditOptions, type AuditResult } from '../../src/audit/audit.ts'
import { deadKey, groupScheduledJobsKey, groupScheduledKey, redeliveryKey, scheduledKey } from '../../src/redis/keys.ts'
import { GROUPS, STREAM, type Group, type JobModel, type Place } from './job-model.ts'

/** Nothing moves here: what does not add up at once does not later. */
const AT_ONCE = { tries: 4, wait: () => Promise.resolve() }

export function auditOf(asking: Asking, group: Group, options: Partial<AuditOptions> = {}): Promise<AuditResult> {
  return auditStream(asking, STREAM, { group, ...options }, AT_ONCE)
}

/** Audits every group: all is accounted for, and where the model says. */
export async function expectAudited(asking: Asking, model: JobModel): Promise<void> {
  for (const group of GROUPS) {
    const { ok, findings, expected, accounted, totals, delayed } = await auditOf(asking, group)
    const at = (where: Place['at'], source?: 0 | 1) =>
      model.jobs.filter(({ lives }) => {
        const { place } = lives[group]
        return place.at === where && (source === undefined || ('source' in place && place.source === source))
      }).length
    const told = {
      completed: model.counted(group, 'completed'),
      cancelled: model.counted(group, 'cancelled'),
      skipped: 0,
      discarded: model.counted(group, 'discarded'),
      gone: 0,
      dead: at('dead'),
      scheduled: at('scheduled'),
      redelivery: at('waiting', 1) + at('pending', 1),
      pending: at('pending', 0),
      waiting: at('waiting', 0),
    }
    expect({ group, ok, findings, totals }).toEqual({ group, ok: true, findings: [], totals: told })
    expect(delayed).toBe(model.jobs.filter(({ due }) => due !== undefined).length)
    expect([expected, accounted]).toEqual([accounted, Object.values(told).reduce((sum, count) => sum + count, 0)])
  }
}

interface Fault {
  readonly kind: string
  /** Empty where it can be told by minute and count only. */
  readonly ids: readonly string[]
  readonly isRepairable: boolean
  readonly plant: (client: Redis) => Promise<unknown>
}

/** What can be broken by hand in the place that a group has each job in. */
function faultsOf(model: JobModel, group: Group): Fault[] {
  return model.jobs.flatMap(({ id, copyIn, lives }): Fault[] => {
    const { place } = lives[group]
    // Of a copy nothing is left but what the group has.
    const named = { ids: [id], isRepairable: copyIn === undefined }
    const redelivery = redeliveryKey(STREAM, group)
    if (place.at === 'scheduled') {
      const [times, records] = [groupScheduledKey(STREAM, group), groupScheduledJobsKey(STREAM, group)]
      return [
        { ...named, kind: 'retry-without-time', isRepairable: true, plant: (client) => client.zrem(times, id) },
        { ...named, kind: 'retry-without-record', plant: (client) => client.hdel(records, id) },
      ]
    }
    if (place.at === 'dead') {
      const { deadId } = place
      return [{ ...named, kind: 'letter-missing', plant: (client) => client.xdel(deadKey(STREAM, group), deadId) }]
    }
    if (place.at === 'delayed' && lives[group].place === place) {
      const plant = (client: Redis) => client.zrem(scheduledKey(STREAM), id)
      return [{ ...named, kind: 'delayed-without-time', plant }]
    }
    if (!('source' in place)) return []
    const { source, entryId } = place
    if (source === 1) {
      const lost: Fault = { ...named, kind: 'redelivery-missing', plant: (client) => client.xdel(redelivery, entryId) }
      if (place.at === 'waiting') return [lost]
      return [lost, { ...lost, plant: (client) => client.xack(redelivery, group, entryId) }]
    }
    if (place.at === 'waiting') return []
    // Where nothing else of its minute has ended, it is known who it is.
    const ended = (['completed', 'cancelled', 'discarded'] as const).some(
      (outcome) => model.counted(group, outcome, id) > 0,
    )
    const told = ended ? { ids: [], isRepairable: false } : { ids: [id], isRepairable: true }
    return [{ ...told, kind: 'missing', plant: (client) => client.xack(STREAM, group, entryId) }]
  })
}

/** Breaks one thing by hand, if there is one: an audit tells it, and it alone; a repair mends what can be mended. */
export async function expectFaultTold(
  { client, asking }: { client: Redis; asking: Asking },
  model: JobModel,
  { group, at }: { group: Group; at: number },
): Promise<string | undefined> {
  const faults = faultsOf(model, group)
  const fault = faults[at % Math.max(1, faults.length)]
  if (fault === undefined) return undefined
  const { kind, ids, isRepairable } = fault
  await fault.plant(client)
  const told = await auditOf(asking, group, { repair: true, execute: true })
  expect([told.ok, told.findings.map((one) => [one.kind, one.count, one.ids])]).toEqual([false, [[kind, 1, ids]]])
  expect([kind, told.repair?.handedBack]).toEqual([kind, isRepairable ? 1 : 0])
  const again = await auditOf(asking, group, { repair: true, execute: true })
  expect([kind, again.ok, again.repair?.handedBack]).toEqual([kind, isRepairable, 0])
  return kind
}
