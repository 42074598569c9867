import fc from 'fast-check'
import { expect, test } from 'vitest'
import { cancel, comeDue, HandWorker, IN_AN_HOUR, item, publishItem, type Taken } from './fixtures/unique.ts'
import { startAll } from '../src/redis/unique.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()

/** Where the model has a job. */
type Place = 'later' | 'waits' | 'runs' | 'retries' | 'over'
type Scope = 'settled' | 'started' | 'ttl'
type Mode = 'reject' | 'replace' | 'debounce'

const command = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      scope: fc.constantFrom<Scope>('settled', 'started', 'ttl'),
      mode: fc.constantFrom<Mode>('reject', 'replace', 'debounce'),
      isLater: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constantFrom('due', 'start', 'complete', 'fail', 'wake', 'die', 'cancel') }),
  },
)

/** The rules of one key, in few lines. */
class Model {
  readonly places = new Map<string, Place>()
  readonly cancelled = new Set<string>()
  holder: { id: string; scope: Scope } | undefined

  publish(mode: Mode, isLater: boolean): { outcome: string; id?: string; replacedId?: string } {
    const { holder } = this
    const place = holder && this.places.get(holder.id)
    if (holder === undefined || place === undefined) return { outcome: isLater ? 'scheduled' : 'added' }
    if (mode === 'reject' || place === 'runs' || place === 'over') return { outcome: 'duplicate', id: holder.id }
    if (mode === 'debounce' && place === 'later') return { outcome: 'replaced', id: holder.id }
    return { outcome: 'replaced', replacedId: holder.id }
  }

  published(id: string, scope: Scope, isLater: boolean): void {
    this.holder = { id, scope }
    this.places.set(id, isLater ? 'later' : 'waits')
  }

  /** It gives way: taken out, or told to its worker. */
  gaveWay(id: string): void {
    if (this.places.get(id) === 'later') this.places.set(id, 'over')
    else {
      this.cancelled.add(id)
      if (this.places.get(id) === 'retries') this.places.set(id, 'retries')
    }
  }

  free(id: string): void {
    if (this.holder?.id === id) this.holder = undefined
  }

  settled(id: string, how: 'completed' | 'lost'): void {
    this.places.set(id, 'over')
    if (how === 'lost' || this.holder?.scope !== 'ttl') this.free(id)
  }

  first(place: Place): string | undefined {
    return [...this.places].find(([, at]) => at === place)?.[0]
  }
}

test('whatever is done to the jobs of one key, a publish is answered as the rules say', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 1, maxLength: 25 }), async (commands) => {
      await redis.flush()
      const worker = await new HandWorker(redis.client).join()
      const model = new Model()
      const running = new Map<string, Taken>()
      let n = 0
      for (const one of commands) {
        if ('mode' in one) {
          const { scope, mode, isLater } = one
          const wanted = model.publish(mode, isLater || mode === 'debounce')
          const due = isLater || mode === 'debounce' ? { due: IN_AN_HOUR } : {}
          const ttlMs = scope === 'ttl' ? 3_600_000 : 0
          const fate = await publishItem(redis.client, item((n += 1), 'k', { until: scope, ttlMs, mode, ...due }))
          expect(fate).toMatchObject(wanted)
          if (wanted.outcome === 'duplicate') continue
          if (wanted.replacedId !== undefined) model.gaveWay(wanted.replacedId)
          model.published(fate.id, scope, 'due' in due)
          continue
        }
        await step(one.kind, { worker, model, running })
      }
    }),
    { numRuns: 60 },
  )
})

async function step(
  kind: string,
  { worker, model, running }: { worker: HandWorker; model: Model; running: Map<string, Taken> },
): Promise<void> {
  const [run] = running.values()
  switch (kind) {
    case 'due': {
      const id = model.first('later')
      if (id === undefined) return
      await comeDue(redis.client, id)
      model.places.set(id, 'waits')
      return
    }
    case 'start': {
      const taken = await worker.take()
      if (taken === undefined) return
      const { id, extra } = taken
      if (model.cancelled.has(id)) {
        await worker.drop(taken)
        return model.settled(id, 'lost')
      }
      model.places.set(id, 'runs')
      running.set(id, taken)
      if (extra.unique?.until !== 'started') return
      await startAll(redis.client, worker.member, [{ id, key: 'k' }])
      return model.free(id)
    }
    case 'wake': {
      const id = model.first('retries')
      if (id === undefined) return
      await worker.wake(id)
      model.places.set(id, 'waits')
      return
    }
    case 'cancel': {
      const id = model.holder?.id
      if (id === undefined || model.places.get(id) === 'over') return
      await cancel(redis.client, id)
      if (model.places.get(id) === 'later' || model.places.get(id) === 'retries') model.places.set(id, 'over')
      else model.cancelled.add(id)
      return model.free(id)
    }
    default:
      if (run === undefined) return
      running.delete(run.id)
      if (kind === 'complete') {
        await worker.complete(run)
        return model.settled(run.id, 'completed')
      }
      if (kind === 'die') {
        await worker.die(run)
        return model.settled(run.id, 'lost')
      }
      await worker.retry(run)
      if (model.cancelled.has(run.id)) return model.settled(run.id, 'lost')
      model.places.set(run.id, 'retries')
  }
}
