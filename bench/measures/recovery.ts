import type { Redis } from 'ioredis'
import { Inspector } from '../../src/index.ts'
import { connect } from '../contenders/stream.ts'
import type { Figures } from '../steps/task.ts'
import { commandStats, worstOf } from './command-stats.ts'
import type { Group } from './measure.ts'
import { fillHistory, HISTORY, SMALL } from './recovery-history.ts'
import type { RecoveryScale, Scale } from './scale.ts'

/**
 * What is done after an incident, on a long history: `npm run bench -- --recovery`. The inspector works in this process, as
 * it does in the command line.
 */

const WHERE = 'job == "send-receipt" && data.order % 10 == 0'

export function recoveryGroups(scale: Scale): Group[] {
  const { entries, copied, pacedPerSecond } = scale.recovery
  return [
    {
      name: 'recovery',
      note:
        `${entries} entries of some 100 bytes, ${scale.recovery.fewEntries} in the small stream beside; dry runs over all, ` +
        `${copied} jobs copied, a paced replay of ${pacedPerSecond}/s; what a question costs is the time in Redis`,
      rounds: scale.fewRounds,
      measures: [
        {
          name: 'recovery',
          title: 'recovery',
          contenders: ['millrace'],
          rows: [
            perSecond('dryRunPerSecond', 'dry run of a replay, all match', 'entries/s'),
            perSecond('wherePerSecond', 'dry run of a replay, filtered by payload', 'entries/s'),
            { figure: 'entriesPerCall', title: '… entries a call, on average', unit: 'entries', digits: 0 },
            perSecond('replayPerSecond', 'replay into a group', 'jobs/s'),
            { figure: 'paceError', title: 'replay at a given rate, off by', unit: '%', digits: 2 },
            perSecond('auditPerSecond', 'audit', 'entries/s'),
            perSecond('findPerSecond', 'find, nothing matches', 'entries/s'),
            { figure: 'statsUs', title: 'stats of a stream', unit: 'µs', digits: 0 },
            { figure: 'statsRatio', title: '… to one of the small stream', unit: '×', digits: 2 },
            { figure: 'explainUs', title: 'explain a job in the middle', unit: 'µs', digits: 0 },
            { figure: 'explainRatio', title: '… to one of the small stream', unit: '×', digits: 2 },
            { figure: 'explainCommands', title: '… commands', unit: 'commands', digits: 0 },
            { figure: 'topUs', title: 'what top asks a second', unit: 'µs', digits: 0 },
            { figure: 'topRatio', title: '… to one of the small stream', unit: '×', digits: 2 },
            { figure: 'worstCommandUs', title: 'dearest command, on average', unit: 'µs', digits: 0 },
          ],
          measure: async ({ redis: { url }, signal }) => {
            const redis = connect(url)
            const inspector = new Inspector({ redis: url })
            try {
              return await measureAll({ redis, inspector, signal }, scale.recovery)
            } finally {
              inspector.close()
              redis.disconnect()
            }
          },
        },
      ],
    },
  ]
}

interface Ground {
  readonly redis: Redis
  readonly inspector: Inspector
  readonly signal: AbortSignal
}

async function measureAll(ground: Ground, scale: RecoveryScale): Promise<Figures> {
  const { redis, inspector, signal } = ground
  const middle = await fillHistory(redis, HISTORY, scale.entries)
  const small = await fillHistory(redis, SMALL, scale.fewEntries)
  await redis.config('RESETSTAT')
  const all = { from: 0, group: 'main', signal }
  const before = await commandStats(redis)
  const dryRun = await timed(() => inspector.replays.plan(HISTORY, all))
  const pages = (await commandStats(redis)).callsOf(SCRIPTS) - before.callsOf(SCRIPTS)
  const filtered = await timed(() => inspector.replays.plan(HISTORY, { ...all, where: WHERE }))
  expect('matches of a dry run', dryRun.told.matches, scale.entries)
  expect('matches of a filtered one', filtered.told.matches, Math.ceil(scale.entries / 10))
  const replayed = await timed(() => inspector.replays.start(HISTORY, { ...all, limit: scale.copied }))
  expect('copies', replayed.told.copied, scale.copied)
  const paced = scale.pacedPerSecond * scale.pacedSeconds
  const rated = await timed(() =>
    inspector.replays.start(HISTORY, { ...all, limit: paced, perSecond: scale.pacedPerSecond }),
  )
  const audited = await timed(() => inspector.audit(HISTORY, { group: 'main', signal }))
  if (!audited.told.ok) throw new Error('expected an audit of a sound history to find nothing')
  const found = await timed(() => inspector.find(HISTORY, { text: 'nobody wrote this', mostScanned: scale.entries }))
  const cost = (ask: (stream: string, id: string) => Promise<unknown>) =>
    costOf(redis, scale.questions, ask, { middle, small })
  const stats = await cost((stream) => inspector.stats(stream))
  const explain = await cost((stream, id) => inspector.explain(stream, id))
  const top = await cost(async (stream) => {
    await inspector.stats(stream)
    await inspector.pending(stream, 'main', { limit: 100 })
    await inspector.workers(stream, 'main')
    await inspector.dead.list(stream, 'main', { limit: 100 })
  })
  return {
    dryRunPerSecond: scale.entries / dryRun.seconds,
    wherePerSecond: scale.entries / filtered.seconds,
    entriesPerCall: scale.entries / Math.max(1, pages),
    replayPerSecond: scale.copied / replayed.seconds,
    paceError: (Math.abs(paced / rated.seconds - scale.pacedPerSecond) / scale.pacedPerSecond) * 100,
    auditPerSecond: scale.entries / audited.seconds,
    findPerSecond: found.told.scanned / found.seconds,
    ...named('stats', stats),
    ...named('explain', explain),
    explainCommands: explain.commands,
    ...named('top', top),
    worstCommandUs: worstOf(await commandStats(redis)).usecPerCall,
  }
}

const SCRIPTS = ['evalsha', 'evalsha_ro', 'eval', 'eval_ro']

interface Cost {
  readonly us: number
  readonly ratio: number
  readonly commands: number
}

/** What one question costs Redis, about the long history and about the short one. */
async function costOf(
  redis: Redis,
  times: number,
  ask: (stream: string, id: string) => Promise<unknown>,
  { middle, small }: { middle: string; small: string },
): Promise<Cost> {
  const one = async (stream: string, id: string) => {
    const before = await commandStats(redis)
    for (let at = 0; at < times; at++) await ask(stream, id)
    const after = await commandStats(redis)
    return { us: (after.usec - before.usec) / times, commands: (after.sent - before.sent) / times }
  }
  // In turns, so that what the machine does meanwhile hits both.
  const rounds: Record<'few' | 'many', { us: number; commands: number }>[] = []
  for (let round = 0; round < 3; round++) {
    rounds.push({ few: await one(SMALL, small), many: await one(HISTORY, middle) })
  }
  const least = (pick: (round: (typeof rounds)[number]) => number) => Math.min(...rounds.map(pick))
  const us = least(({ many }) => many.us)
  return { us, ratio: us / least(({ few }) => few.us), commands: least(({ many }) => many.commands) }
}

function named(name: string, { us, ratio }: Cost): Figures {
  return { [`${name}Us`]: us, [`${name}Ratio`]: ratio }
}

async function timed<Told>(work: () => Promise<Told>): Promise<{ told: Told; seconds: number }> {
  const startedMs = performance.now()
  const told = await work()
  return { told, seconds: (performance.now() - startedMs) / 1000 }
}

function expect(what: string, got: number, wanted: number): void {
  if (got !== wanted) throw new Error(`expected ${wanted} ${what}, got ${got}`)
}

function perSecond(figure: string, title: string, unit: string) {
  return { figure, title, unit, digits: 0 }
}
