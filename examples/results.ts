import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { defineJob, handle, Inspector, Producer, ResultError, Worker, type Schema } from 'millrace'

/**
 * A report that is asked for over HTTP. POST /reports waits a second for its result and answers 200 with it; for one that takes longer
 * it answers 202 with the id, and GET /reports/<id> tells how that stands. Its handler goes on from its last checkpoint.
 */

const redis = process.env['REDIS_URL'] ?? 'redis://localhost:6379'

interface Report {
  readonly pages: number
}
const makeReport = defineJob('make-report', { stream: 'reports', schema: as<Report>(), result: as<{ text: string }>() })

const worker = new Worker({
  redis,
  stream: 'reports',
  handlers: [
    handle(makeReport, async ({ pages }, job) => {
      const done = ((await job.lastCheckpoint()) as number | undefined) ?? 0
      for (let page = done + 1; page <= pages; page++) {
        await sleep(100)
        job.progress({ page, of: pages })
        await job.checkpoint(page)
      }
      return { text: `${pages} pages` }
    }),
  ],
})

const producer = new Producer({ redis })
const inspector = new Inspector({ redis })

const server = createServer((request, response) => {
  const say = (status: number, body: unknown) => response.writeHead(status).end(JSON.stringify(body))
  const [, , id = ''] = (request.url ?? '').split('/')
  const answered = request.method === 'POST' ? makeAndWait(say) : look(id, say)
  answered.catch((error: unknown) => say(500, { error: String(error) }))
})

type Say = (status: number, body: unknown) => void

async function makeAndWait(say: Say): Promise<void> {
  const pages = 3 + Math.floor(Math.random() * 2) * 20
  const { id, result } = await producer.publish(makeReport, { pages }, { result: true })
  try {
    const { text } = await result({ timeoutMs: 1000 })
    say(200, { text })
  } catch (error) {
    if (!(error instanceof ResultError) || error.code !== 'ERR_RESULT_TIMEOUT') throw error
    say(202, { id })
  }
}

async function look(id: string, say: Say): Promise<void> {
  const { state, result } = await inspector.result('reports', id)
  if (state === 'waiting') say(202, { id })
  else if (state === 'completed') say(200, result)
  else say(state === 'unknown' ? 404 : 500, { state })
}

await worker.start()
server.listen(Number(process.env['PORT'] ?? 3000), () => {
  console.log(`listening on port ${(server.address() as { port: number }).port}`)
})
process.once('SIGTERM', () => {
  server.close()
  inspector.close()
  void Promise.all([worker.stop(), producer.close()])
})

/** A schema of any library does; this one takes what it is given. */
function as<Value>(): Schema<Value> {
  return { '~standard': { version: 1, vendor: 'none', validate: (value) => ({ value: value as Value }) } }
}
