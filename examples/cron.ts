import { defineJob, handle, Worker, type DeclaredCron } from 'millrace'

/**
 * Jobs that are published again and again. Start it twice: the schedules are one truth in Redis, and each tick is fired once.
 * What `millrace cron set`, `remove` and `run` do to them is in force while it runs.
 */

const sendReport = defineJob<{ kind: string }>('send-report', { stream: 'reports' })
const checkStock = defineJob<{ below: number }>('check-stock', { stream: 'reports' })

const cron: DeclaredCron[] = [
  // In Berlin, also on the days on which the clocks change; one report for all the nights on which nobody worked.
  { name: 'nightly', job: sendReport, data: { kind: 'full' }, at: '0 3 * * *', zone: 'Europe/Berlin', catchUp: 'one' },
  // Never two beside each other, and no point in one that is late.
  {
    name: 'stock',
    job: checkStock,
    data: { below: 10 },
    everyMs: 500,
    overlap: 'skip',
    catchUp: 'none',
    ttlMs: 60_000,
  },
]

const worker = new Worker({
  redis: process.env['REDIS_URL'] ?? 'redis://localhost:6379',
  stream: 'reports',
  cron,
  handlers: [
    handle(sendReport, ({ kind }, job) => console.log(`${kind} report, ${tickText(job.cron?.tickMs)}`)),
    handle(checkStock, ({ below }, job) => console.log(`items below ${below}, ${tickText(job.cron?.tickMs)}`)),
  ],
})

await worker.run()

function tickText(ms: number | null | undefined): string {
  return ms === undefined || ms === null ? 'out of turn' : `of ${new Date(ms).toISOString()}`
}
