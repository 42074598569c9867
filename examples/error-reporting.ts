import { AsyncLocalStorage } from 'node:async_hooks'
import { defineJob, handle, Worker } from 'millrace'

/**
 * Errors of jobs in an error reporter such as Sentry: each run has a scope of its own, with tags and whatever is noted in it, and
 * a job is one error, when it is dead, however often it was tried before.
 *
 * To run it: `npx jiti examples/error-reporting.ts`, and `millrace publish orders send-receipt '{"order":42}'`.
 */

interface Scope {
  readonly tags: Readonly<Record<string, string | number>>
  readonly notes: string[]
}

/** Stands for the SDK of the reporter, which has a scope, notes (Sentry calls them breadcrumbs) and levels, too. */
const reporter = {
  scopes: new AsyncLocalStorage<Scope>(),
  note: (text: string) => void reporter.scopes.getStore()?.notes.push(text),
  report(level: 'warning' | 'error', error: unknown, { tags, notes }: Scope) {
    const message = error instanceof Error ? error.message : String(error)
    console.log(JSON.stringify({ level, message, tags, notes }))
  },
}

const sendReceipt = defineJob<{ order: number }>('send-receipt', {
  stream: 'orders',
  retry: { attempts: 2, delayMs: 100 },
})

const worker = new Worker({
  redis: process.env['REDIS_URL'] ?? 'redis://localhost:6379',
  stream: 'orders',
  handlers: [
    handle(sendReceipt, ({ order }) => {
      reporter.note(`looked up order ${order}`)
      throw new Error('the mail server is away')
    }),
  ],
})

/** Which scope an error was thrown in; gone with the error. */
const scopeOf = new WeakMap<object, Scope>()

worker.use(({ job: { stream, name, id, attempt } }, next) => {
  const scope = { tags: { stream, job: name, id, attempt }, notes: [] }
  return reporter.scopes.run(scope, async () => {
    try {
      return await next()
    } catch (error) {
      if (typeof error === 'object' && error !== null) scopeOf.set(error, scope)
      throw error
    }
  })
})

// The middleware does not know yet whether there is another attempt; the events do, once Redis has confirmed it.
worker.on('job:retried', ({ error, ...about }) => reporter.report('warning', error, scopeFor(error, about)))
worker.on('job:dead', ({ error, reason, ...about }) =>
  reporter.report('error', error, scopeFor(error, { ...about, reason })),
)

/** A job may also die without a run, and then nothing was thrown in any scope. */
function scopeFor(error: unknown, { stream, job, id, attempt, reason }: Died): Scope {
  const known = typeof error === 'object' && error !== null ? scopeOf.get(error) : undefined
  const tags = { stream, job, id, attempt, ...(reason !== undefined && { reason }) }
  return { tags: { ...tags, ...known?.tags }, notes: known?.notes ?? [] }
}

interface Died {
  readonly stream: string
  readonly job: string
  readonly id: string
  readonly attempt: number
  readonly reason?: string
}

await worker.run()
