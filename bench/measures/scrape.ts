import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Redis } from 'ioredis'
import { Registry } from 'prom-client'
import { StreamMetrics } from '../../src/index.ts'
import { connect } from '../contenders/stream.ts'
import type { Figures } from '../steps/task.ts'
import type { Group } from './measure.ts'
import type { ScrapeScale, Scale } from './scale.ts'

/**
 * What a scrape of the exporter costs Redis, and how long the page that it becomes holds up the event loop. The exporter is in
 * this process.
 */
export function scraping(scale: Scale): Group {
  const { streams, groups, pageSeries } = scale.scrape
  return {
    name: 'scrape',
    note:
      `${streams} streams of ${groups} groups each: one that is done, one with a lag, one with pending jobs, retries and dead letters, two ` +
      `workers each; time in Redis of all commands of a scrape | page: ${pageSeries} series or more, the longest that the event loop stood still`,
    rounds: scale.fewRounds,
    measures: [
      {
        name: 'scrape',
        title: 'scrape',
        contenders: ['millrace'],
        rows: [
          { figure: 'redisMs', title: 'scrape, time in Redis', unit: 'ms', digits: 1 },
          { figure: 'firstRedisMs', title: '… the first one', unit: 'ms', digits: 1 },
          { figure: 'commands', title: '… commands', unit: 'commands', digits: 0 },
          { figure: 'series', title: '… series', unit: 'series', digits: 0 },
          { figure: 'pageSeries', title: 'a page of 5 000 series or more', unit: 'series', digits: 0 },
          { figure: 'blockedMs', title: '… longest stop of the event loop', unit: 'ms', digits: 1 },
        ],
        measure: async ({ redis: { url } }) => {
          const redis = connect(url)
          try {
            return await measureScrape(redis, url, scale.scrape)
          } finally {
            redis.disconnect()
          }
        },
      },
    ],
  }
}

async function measureScrape(redis: Redis, url: string, scale: ScrapeScale): Promise<Figures> {
  const names = Array.from({ length: scale.streams }, (_, at) => `stream-${at}`)
  for (const name of names) await fill(redis, name, scale)
  const all = await withMetrics(url, undefined, async (metrics, registry) => {
    const firstUs = await timeInRedis(redis, () => metrics.runOnce())
    await metrics.runOnce()
    const each: { usec: number; calls: number }[] = []
    for (let at = 0; at < scale.scrapes; at++) each.push(await timeInRedis(redis, () => metrics.runOnce()))
    const usec = each.reduce((sum, one) => sum + one.usec, 0) / each.length
    const commands = each.reduce((sum, one) => sum + one.calls, 0) / each.length
    const series = seriesOf(await registry.metrics())
    return { redisMs: usec / 1000, firstRedisMs: firstUs.usec / 1000, commands, series }
  })
  const seriesAStream = all.series / scale.streams
  const some = names.slice(0, Math.ceil(scale.pageSeries / seriesAStream) + 1)
  const page = await withMetrics(url, some, async (metrics, registry) => {
    // The engine has compiled it by the time that it is scraped for days.
    for (let at = 0; at < scale.scrapes; at++) await registry.metrics()
    await metrics.runOnce()
    let blockedMs = 0
    let text = ''
    for (let at = 0; at < scale.scrapes; at++) {
      const delay = monitorEventLoopDelay({ resolution: 1 })
      delay.enable()
      text = await registry.metrics()
      // What stood still at the end shows when the timer of the histogram next fires.
      await new Promise((resolve) => setTimeout(resolve, 20))
      delay.disable()
      blockedMs = Math.max(blockedMs, delay.max / 1e6)
    }
    return { pageSeries: seriesOf(text), blockedMs }
  })
  return { ...all, ...page }
}

async function withMetrics<Told>(
  redis: string,
  streams: readonly string[] | undefined,
  use: (metrics: StreamMetrics, registry: Registry) => Promise<Told>,
): Promise<Told> {
  const registry = new Registry()
  const metrics = new StreamMetrics({ redis, registry, ...(streams === undefined ? {} : { streams }) })
  try {
    return await use(metrics, registry)
  } finally {
    metrics.close()
  }
}

function seriesOf(page: string): number {
  return page.split('\n').filter((line) => line !== '' && !line.startsWith('#')).length
}

/** All commands of clients, and not those that scripts call: what these take is in the time of their script. */
async function timeInRedis(redis: Redis, work: () => Promise<unknown>): Promise<{ usec: number; calls: number }> {
  await redis.config('RESETSTAT')
  await work()
  const text = await redis.info('commandstats')
  const told = [...text.matchAll(/^cmdstat_([^:]+):calls=(\d+),usec=(\d+)/gm)].filter(([, name = '']) =>
    SENT.test(name),
  )
  return {
    usec: told.reduce((sum, [, , , usec]) => sum + Number(usec), 0),
    calls: told.reduce((sum, [, , calls]) => sum + Number(calls), 0),
  }
}

const SENT = /^(eval|sscan|smembers|scard|info|memory|time|config\|get)/

async function fill(redis: Redis, stream: string, { entries, groups, pending }: ScrapeScale): Promise<void> {
  const pipeline = redis.pipeline()
  for (let at = 0; at < entries; at++) pipeline.xadd(stream, '*', 'job', 'send-receipt', 'data', `{"order":${at}}`)
  pipeline.sadd('millrace:streams', stream)
  const nowMs = Date.now()
  for (let order = 0; order < groups; order++) {
    const group = `group-${order}`
    const prefix = `{${stream}}:group:${group}`
    pipeline.call('XGROUP', 'CREATE', stream, group, order === 0 ? '$' : '0', 'ENTRIESREAD', order === 0 ? entries : 0)
    pipeline.call('XGROUP', 'CREATE', `${prefix}:redelivery`, group, '0', 'MKSTREAM')
    for (const worker of ['one', 'two']) {
      pipeline.zadd(`${prefix}:workers`, nowMs, worker)
      pipeline.hset(`${prefix}:workers:info`, worker, JSON.stringify({ host: 'h', pid: 1, slots: 32, running: 3 }))
    }
    if (order !== 2) continue
    pipeline.call('XREADGROUP', 'GROUP', group, 'one', 'COUNT', pending, 'STREAMS', stream, '>')
    for (let at = 0; at < pending; at++) {
      pipeline.zadd(`${prefix}:scheduled`, nowMs + 60_000 + at, `${nowMs}-${at}`)
      pipeline.xadd(`${prefix}:dead`, '*', 'dead-reason', 'attempts', 'job', 'send-receipt')
    }
  }
  const answers = (await pipeline.exec()) ?? []
  const failed = answers.find(([error]) => error !== null)
  if (failed !== undefined) throw new Error(`could not fill ${stream}: ${String(failed[0])}`)
}
