import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startRedis } from '../cli/redis-server.ts'
import { answered, type Answered, type Panel, type Window } from './overview/asking.ts'
import { endAll } from './overview/children.ts'
import { draw } from './overview/draw.ts'
import { SCRAPE_SECONDS, startPrometheus } from './overview/prometheus.ts'
import { BACK, KILLED, Workload } from './overview/workload.ts'

/**
 * `npm run picture:overview [-- --minutes 6]`: writes docs/overview.svg: the panels of the overview as a real run fills them.
 * Redis, workers, exporter and Prometheus are real, and each panel is asked what its JSON asks; only the drawing is ours, for
 * Grafana is not needed for it. With `--answers file` the answers are kept there, and with `--from file` they are drawn
 * again without a run.
 */

const root = join(import.meta.dirname, '..')

interface Kept {
  readonly window: Window
  readonly found: readonly Answered[]
  readonly caption: readonly string[]
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '6' },
    answers: { type: 'string' },
    from: { type: 'string' },
    out: { type: 'string', default: join(root, 'docs/overview.svg') },
  },
})

const kept = values.from === undefined ? await runFor(Number(values.minutes)) : await read(values.from)
if (values.answers !== undefined) await writeFile(values.answers, JSON.stringify(kept))
await writeFile(values.out, draw(kept.found, kept.window, kept.caption))

async function read(file: string): Promise<Kept> {
  return JSON.parse(await readFile(file, 'utf8')) as Kept
}

async function runFor(minutes: number): Promise<Kept> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-overview-'))
  const redis = await startRedis({
    args: ['--appendonly', 'yes', '--maxmemory', '64mb', '--maxmemory-policy', 'noeviction'],
  })
  const workload = new Workload(redis.url)
  try {
    const origin = await startPrometheus(folder, await workload.start())
    await sleep(5000)
    const fromSeconds = Date.now() / 1000
    const failed = await workload.run(minutes * 60)
    const toSeconds = Date.now() / 1000
    const stepSeconds = Math.max(SCRAPE_SECONDS, Math.round((toSeconds - fromSeconds) / 240))
    const window = { fromSeconds, toSeconds, stepSeconds, rateInterval: `${SCRAPE_SECONDS * 10}s` }
    const json = await readFile(join(root, 'grafana/dashboards/overview.json'), 'utf8')
    const { panels } = JSON.parse(json) as { panels: Panel[] }
    return { window, found: await answered(origin, panels, window), caption: captionOf(minutes, failed) }
  } finally {
    await workload.stop()
    await endAll()
    await redis.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

function captionOf(minutes: number, failed: number): string[] {
  const day = new Date().toISOString().slice(0, 10)
  const incident = `At ${(minutes * KILLED).toFixed(1)} min the workers of orders/main were killed and twice as many jobs came in; at ${(minutes * BACK).toFixed(1)} min they came back.`
  const publishes = failed === 0 ? 'No publish failed.' : `${failed} publishes failed.`
  return [
    `A real run of ${minutes} minutes on ${day}: Redis, worker pools, exporter, and Prometheus with grafana/prometheus/. ${publishes}`,
    incident,
    'Each panel shows what Prometheus answered to the queries of grafana/dashboards/overview.json. Drawn by scripts/overview.ts, not by Grafana.',
  ]
}
