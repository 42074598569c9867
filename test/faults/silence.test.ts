import { expect, test } from 'vitest'
import { DEFAULT_RETENTION, Trimmer } from '../../src/trimmer.ts'
import { newCounts } from '../../src/counts.ts'
import { resolveLogger } from '../../src/logger.ts'
import { Connection } from '../../src/redis/connection.ts'
import { claim } from '../../src/redis/scripts/claim.ts'
import { beginDeliveries, renewLeases, settleCompleted } from '../../src/redis/scripts/delivery.ts'
import { settleFenced } from '../../src/redis/scripts/outcomes.ts'
import { joinGroup, pulse } from '../../src/redis/scripts/group.ts'
import { trim } from '../../src/redis/scripts/trim.ts'
import { resolveRedis } from '../../src/redis/target.ts'
import { beside, onEnd } from '../helpers/cleanup.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { startProxy, type FaultProxy, type Match } from '../helpers/proxy.ts'
import { connectTo, startServer } from '../helpers/redis.ts'
import { add, gate, startWorker, tally } from '../helpers/workers.ts'

/**
 * Connections that stay open and say nothing any more, one kind at a time: the worker makes them anew and goes on, without a
 * restart. Each test has a Redis of its own: they run side by side.
 */

const calls =
  (script: { sha: string }): Match =>
  ([name, sha]) =>
    name === 'evalsha' && sha === script.sha
const isRead: Match = ([name]) => name === 'xreadgroup'

async function behindProxy() {
  const server = await startServer()
  const client = connectTo(server.url)
  const scripts = [claim, beginDeliveries, settleFenced, renewLeases, settleCompleted, joinGroup, pulse, trim]
  // A script that Redis does not know yet is sent as a whole, which the matches would not see.
  for (const { lua } of scripts) await client.call('SCRIPT', 'LOAD', lua)
  return { client, proxy: await startProxy(server.url) }
}

/** Runs `x`, and notes which ran. */
async function noting(proxy: FaultProxy) {
  const ran: string[] = []
  const handlers = { x: (_data: unknown, job: { id: string }) => void ran.push(job.id) }
  return { ran, worker: await startWorker({ redis: proxy.url, leaseMs: 3000, handlers }) }
}

test.concurrent(
  'the connection of the reads: what comes later is read on another one',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const { ran } = await noting(proxy)
    const swallowed = proxy.swallowReplyKeepOpen(isRead)
    const lost = await add(client, 'x')
    await swallowed
    const later = await add(client, 'x')

    await eventually(() => expect([...ran].sort()).toEqual([lost, later]))
  }),
)

test.concurrent(
  'the connection of the reads, before its first read: its client id never comes',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const swallowed = proxy.swallowReplyKeepOpen(([name, what]) => name === 'client' && what?.toLowerCase() === 'id')
    const { ran } = await noting(proxy)
    await swallowed
    const id = await add(client, 'x')

    await eventually(() => expect(ran).toEqual([id]))
  }),
)

// Under a long lease too: what a silent connection may last must not follow from it.
test.concurrent.each([5000, 3_600_000])(
  'the connection of the keeper, in a pulse, under a lease of %i ms: pulses go on and no lease is lost',
  (leaseMs) =>
    beside(async () => {
      const { client, proxy } = await behindProxy()
      const { wait, open } = gate()
      onEnd(open)
      const worker = await startWorker({ redis: proxy.url, leaseMs, handlers: { hold: wait } })
      await add(client, 'hold')
      await waitFor(() => worker.counts.delivered === 1)
      await proxy.swallowReplyKeepOpen(calls(pulse))
      const at = async () => Number(await client.zscore('{orders}:group:main:workers', worker.consumer))
      const silentAt = await at()
      await waitFor(async () => (await at()) > silentAt + 2000, { what: 'pulses go on' })
      open()

      await eventually(async () => expect(await tally(client)).toEqual({ completed: 1 }))
      expect(worker.counts).toMatchObject({ leaseLost: 0, delivered: 1 })
    })(),
)

test.concurrent(
  'the connection of the keeper, in a renewal: renewals go on and no lease is lost',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const { wait, open } = gate()
    onEnd(open)
    const options = { redis: proxy.url, leaseMs: 5000, handlers: { hold: wait } }
    const worker = await startWorker(options)
    const id = await add(client, 'hold')
    await waitFor(() => worker.counts.delivered === 1)
    // Somebody who would take it if its lease were over.
    const other = await startWorker(options)
    await proxy.swallowReplyKeepOpen(calls(renewLeases))
    const passes = () => other.counts.claimPasses + worker.counts.claimPasses
    const before = passes()
    await waitFor(() => passes() >= before + 3, { what: 'three passes' })
    const [row] = (await client.call('XPENDING', 'orders', 'main', '-', '+', '10')) as [
      string,
      string,
      number,
      number,
    ][]
    open()

    expect(row).toMatchObject([id, worker.consumer, expect.any(Number), 1])
    await eventually(async () => expect(await tally(client)).toEqual({ completed: 1 }))
    expect(worker.counts.leaseLost).toBe(0)
  }),
)

test.concurrent(
  'the connection of the commands, in a settlement: the outcome is settled and the job runs once',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const { ran, worker } = await noting(proxy)
    const swallowed = proxy.swallowReplyKeepOpen(calls(settleCompleted))
    const first = await add(client, 'x')
    await swallowed
    const second = await add(client, 'x')

    await eventually(() => expect(worker.counts.completed).toBe(2))
    expect(ran).toEqual([first, second])
    expect(await tally(client)).toEqual({ completed: 2 })
  }),
)

test.concurrent(
  'the connection of the commands, in a burial: the job is dead once',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const { worker } = await noting(proxy)
    const swallowed = proxy.swallowReplyKeepOpen(calls(settleFenced))
    await client.xadd('orders', '*', 'no', 'job')
    await swallowed

    await eventually(() => expect(worker.counts.dead + worker.counts.gone + worker.counts.late).toBe(1))
    expect(await client.xlen('{orders}:group:main:dead')).toBe(1)
  }),
)

test.concurrent(
  'the connection of the commands, in a claim and in a begin: what was left by others runs',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const id = await add(client, 'x')
    await client.call('XGROUP', 'CREATE', 'orders', 'main', '0')
    await client.call('XREADGROUP', 'GROUP', 'main', 'ghost', 'STREAMS', 'orders', '>')
    await client.call('XCLAIM', 'orders', 'main', 'ghost', 0, id, 'IDLE', 600_000, 'JUSTID')
    const swallowed = [proxy.swallowReplyKeepOpen(calls(claim)), proxy.swallowReplyKeepOpen(calls(beginDeliveries))]
    const { ran } = await noting(proxy)
    await Promise.all(swallowed)

    await eventually(() => expect(ran).toEqual([id]))
    await eventually(async () => expect(await tally(client)).toEqual({ completed: 1 }))
  }),
)

test.concurrent(
  'the connection of the commands, while a vanished group is made again',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const { ran } = await noting(proxy)
    const swallowed = proxy.swallowReplyKeepOpen(calls(joinGroup))
    await client.call('XGROUP', 'DESTROY', 'orders', 'main')
    await swallowed
    const id = await add(client, 'x')

    await eventually(() => expect(ran).toEqual([id]))
  }),
)

test.concurrent(
  'the connection of the commands, in a trim: the pass fails within seconds and the next one trims',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const member = { stream: 'orders', group: 'main', consumer: 'me' }
    await client.call('XGROUP', 'CREATE', 'orders', 'main', '0', 'MKSTREAM')
    for (let n = 0; n < 1000; n++) await add(client, 'x')
    await client.call('XGROUP', 'SETID', 'orders', 'main', '$')
    const connection = new Connection(resolveRedis(proxy.url), { role: 'worker', socketTimeoutMs: 5000 })
    onEnd(() => connection.close())
    await connection.ready(5000)
    const retention = { ...DEFAULT_RETENTION, maxBytes: 0 }
    const trimmer = new Trimmer({ connection, member, retention, counts: newCounts(), logger: resolveLogger(false) })
    void proxy.swallowReplyKeepOpen(calls(trim))
    await expect(trimmer.runOnce()).rejects.toThrow()
    await connection.ready(5000)
    await trimmer.runOnce()
    expect(await client.xlen('orders')).toBeLessThan(1000)
  }),
)

test.concurrent(
  'all connections, old and new, for 20 s: what ran is settled once, what waited runs, and nothing is restarted',
  beside(async () => {
    const { client, proxy } = await behindProxy()
    const { wait, open } = gate()
    onEnd(open)
    const ran: string[] = []
    const hold = async (_data: unknown, job: { id: string }) => {
      ran.push(job.id)
      await wait()
    }
    const worker = await startWorker({ redis: proxy.url, healthPort: 0, handlers: { hold } })
    const first = await add(client, 'hold')
    await waitFor(() => ran.length === 1)
    proxy.blackhole(true)
    const second = await add(client, 'hold')
    await new Promise((resolve) => setTimeout(resolve, 20_000))
    expect(worker.health()).toMatchObject({ live: true, ready: false })
    proxy.blackhole(false)
    open()

    await eventually(async () => expect(await tally(client)).toEqual({ completed: 2 }))
    await eventually(() => expect(worker.health()).toMatchObject({ live: true, ready: true }))
    expect(ran).toEqual([first, second])
  }),
  90_000,
)
