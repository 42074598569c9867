import { describe, expect, test } from 'vitest'
import { Asking } from '../src/asking.ts'
import { auditStream } from '../src/audit/audit.ts'
import { complete, deliverAll, end, joinAs, minutesAgo, publishAt } from './helpers/audits.ts'
import { onEnd } from './helpers/cleanup.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()

/** Audits, and does something before each further gathering. Tells how often that was. */
async function auditWhile(act: (tried: number) => Promise<void>) {
  const asking = new Asking({ redis: redis.url, logger: false })
  onEnd(() => asking.close())
  let waits = 0
  const wait = async (tried: number) => {
    waits += 1
    await act(tried)
  }
  const result = await auditStream(asking, 'orders', { group: 'main' }, { tries: 4, wait })
  return { ok: result.ok, states: result.minutes.map(({ state }) => state), findings: result.findings, waits }
}

async function arrange(): Promise<string[]> {
  await joinAs(redis.client)
  const ids = await publishAt(redis.client, await minutesAgo(redis.client, 10), 10)
  await deliverAll(redis.client)
  return ids
}

describe('a minute that does not add up', () => {
  test('is a fault once two gatherings in a row have seen the same of it', async () => {
    const ids = await arrange()
    await redis.client.xack('orders', 'main', ids[0] as string)
    const found = await auditWhile(async () => {})
    expect(found).toMatchObject({ ok: false, states: ['fault'], waits: 1, findings: [{ kind: 'missing', count: 1 }] })
  })

  test('is no fault while its jobs move, however often it lacks as many', async () => {
    const ids = await arrange()
    await redis.client.xack('orders', 'main', ids[0] as string)
    const found = await auditWhile((tried) => complete(redis.client, [ids[tried + 1] as string]))
    expect(found).toEqual({ ok: true, states: ['moving'], findings: [], waits: 4 })
  })

  test('is told as a fault when its jobs have come to rest', async () => {
    const ids = await arrange()
    await redis.client.xack('orders', 'main', ids[0] as string)
    const found = await auditWhile(async (tried) => {
      if (tried === 0) await end(redis.client, 'retry', ids.slice(1, 2))
    })
    expect(found).toMatchObject({ ok: false, states: ['fault'], waits: 2, findings: [{ count: 1 }] })
  })

  test('adds up when what it lacked has come up', async () => {
    const ids = await arrange()
    await redis.client.xack('orders', 'main', ids[0] as string)
    // As if the first gathering had looked between the ack of a job and its tally.
    const found = await auditWhile(async () => {
      await redis.client.xclaim('orders', 'main', 'a', 0, ids[0] as string, 'FORCE', 'JUSTID')
    })
    expect(found).toEqual({ ok: true, states: ['ok'], findings: [], waits: 1 })
  })
})

test('a minute that adds up is gathered once', async () => {
  await complete(redis.client, (await arrange()).slice(0, 5))
  expect(await auditWhile(async () => {})).toMatchObject({ ok: true, states: ['ok'], waits: 0 })
})

test('an audit ends with its signal', async () => {
  await arrange()
  const asking = new Asking({ redis: redis.url, logger: false })
  onEnd(() => asking.close())
  const audit = auditStream(asking, 'orders', { group: 'main', signal: AbortSignal.abort(new Error('enough')) })
  await expect(audit).rejects.toThrow('enough')
})
