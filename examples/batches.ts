import { defineJob, handleBatch, Producer, Worker } from 'millrace'

/**
 * Page views, a job each, that are added up in a database with one statement per batch in the place of one per view. A view that the
 * database refuses is a dead letter, and holds up none of the others.
 */

const countView = defineJob<{ page: string; seconds: number }>('count-view', {
  stream: 'views',
  retry: { attempts: 2, delayMs: 100 },
})

/** In the place of a database: pages by their views, and how often it was written to. */
const database = {
  statements: 0,
  views: new Map<string, number>(),
  async add(views: ReadonlyMap<string, number>) {
    this.statements += 1
    for (const [page, count] of views) this.views.set(page, (this.views.get(page) ?? 0) + count)
  },
}

const handler = handleBatch(countView, { size: 100, lingerMs: 200 }, async (batch) => {
  const views = new Map<string, number>()
  for (const { data, fail } of batch) {
    // It fails alone, at once, and is none of the others' matter.
    if (data.seconds < 0) fail(new Error('it took less than no time'))
    else views.set(data.page, (views.get(data.page) ?? 0) + 1)
  }
  // If this throws, the views that are still open have failed with it, and are tried again.
  await database.add(views)
})

const redis = process.env['REDIS_URL'] ?? 'redis://localhost:6379'
// Twice the size: one batch is written while the next one fills.
const worker = new Worker({ redis, stream: 'views', concurrency: 200, handlers: [handler] })
const ended = new Promise<void>((resolve) => {
  let left = 1000
  const end = () => void ((left -= 1) === 0 && resolve())
  worker.on('job:completed', end).on('job:dead', end)
})
await worker.start()

const producer = new Producer({ redis })
const views = Array.from({ length: 1000 }, (_, n) => ({ page: `/${n % 3}`, seconds: n === 500 ? -1 : n }))
await producer.publishMany(countView, views)
await producer.close()
await ended
await worker.stop()

const sum = [...database.views.values()].reduce((all, count) => all + count, 0)
console.log(`${sum} views of ${database.views.size} pages`)
console.log(database.statements < 100 ? 'in fewer than 100 statements' : `in ${database.statements} statements`)
