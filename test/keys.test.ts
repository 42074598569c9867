import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { beforeAll, describe, expect, test } from 'vitest'
import * as keys from '../src/redis/keys.ts'
import { append, open } from '../src/redis/publishing.ts'
import { join } from '../src/redis/stream.ts'
import { startAll } from '../src/redis/unique.ts'
import { newProducer, publish } from './fixtures/producers.ts'
import { fates, item } from './fixtures/unique.ts'
import { eventually } from './helpers/eventually.ts'
import { connectTo, startServer } from './helpers/redis.ts'
import { pending, startWorker, tally } from './helpers/workers.ts'

/** Every key that belongs to a stream, by what it is for. */
function keysOf(stream: string, { group = 'g', producer = 'p', hour = '2026-11-21T03' } = {}): Record<string, string> {
  return {
    stream,
    settings: keys.settingsKey(stream),
    producer: keys.producerKey(stream, producer),
    scheduled: keys.scheduledKey(stream),
    scheduledJobs: keys.scheduledJobsKey(stream),
    cancelled: keys.cancelledKey(stream),
    groupScheduled: keys.groupScheduledKey(stream, group),
    groupScheduledJobs: keys.groupScheduledJobsKey(stream, group),
    redelivery: keys.redeliveryKey(stream, group),
    dead: keys.deadKey(stream, group),
    index: keys.indexKey(stream, group),
    tally: keys.tallyKey(stream, group, hour),
    workers: keys.workersKey(stream, group),
    info: keys.workersInfoKey(stream, group),
    replays: keys.replaysKey(stream),
    replay: keys.replayKey(stream, producer),
    replayIds: keys.replayIdsKey(stream, producer),
    holds: keys.holdsKey(stream),
    token: keys.tokenKey(stream, producer),
    unique: keys.uniqueKey(stream, producer),
    outcomes: keys.outcomesKey(stream, group, hour),
  }
}

const nameCharacter = fc.constantFrom(...'ab:.-_0')
const plainName = fc.string({ unit: nameCharacter, minLength: 1, maxLength: 6 })
const part = fc.string({ unit: nameCharacter, maxLength: 4 })
const taggedName = fc.tuple(part, plainName, part).map(([before, tag, after]) => `${before}{${tag}}${after}`)
/** Names that are taken. */
const streamName = fc.oneof(plainName, taggedName).filter((name) => {
  try {
    return keys.checkStreamName(name) === name
  } catch {
    return false
  }
})
const groupName = fc.string({ unit: fc.constantFrom(...'ab.-_0'), minLength: 1, maxLength: 4 })

describe('the keys of a stream', () => {
  /** The slots that a cluster has for these keys. */
  async function slotsOf(all: readonly string[]): Promise<unknown[]> {
    return Promise.all(all.map((key) => cluster.cluster('KEYSLOT', key)))
  }
  let cluster: Redis

  beforeAll(async () => {
    const server = await startServer({ args: ['--cluster-enabled', 'yes'] })
    cluster = connectTo(server.url)
  })

  test.each(['orders', 'a.b:c-d_e', '{acme}:orders', 'orders:{acme}', 'a{b}c', ':', 'x'.repeat(200)])(
    'of %s share its slot',
    async (stream) => {
      const own = Object.values(keysOf(stream))
      const slots = await slotsOf(own)
      expect(own.length).toBeGreaterThan(8)
      expect(slots).toEqual(own.map(() => slots[0]))
    },
  )

  test.each(['orders', '{acme}:orders', 'a{b}c'])(
    'of %s share its slot, whatever a uniqueness key is made of',
    async (stream) => {
      const texts = ['{x}', '}', '{', '}{y}', '{}', 'a}b{c}', 'ü🚂']
      const own = [stream, ...texts.flatMap((text) => [keys.uniqueKey(stream, text), keys.tokenKey(stream, text)])]
      expect(new Set(await slotsOf(own)).size).toBe(1)
    },
  )

  test('of unique jobs are all that their scripts touch in a cluster, whatever a uniqueness key is made of', async () => {
    await cluster.cluster('ADDSLOTS', ...Array.from({ length: 16_384 }, (_, slot) => slot))
    await eventually(async () => expect(await cluster.cluster('INFO')).toContain('cluster_state:ok'))
    for (const stream of ['orders', '{acme}:orders', 'a{b}c']) {
      const member = { stream, group: 'main', consumer: 'w' }
      await join(cluster, member, { startAt: 'oldest', leaseMs: 60_000, maxDeliveries: 5 })
      await open(cluster, stream, 'p')
      const texts = ['{x}', '}{y}', '}', '{']
      const items = texts.flatMap((text) => [
        item(1, text),
        item(2, text, { mode: 'replace', until: 'started' }),
        item(3, text, { mode: 'debounce', due: '+1000', token: text }),
      ])
      const told = fates(await append(cluster, stream, { producerId: 'p', seq: 1, items }))
      expect(told.map((fate) => (typeof fate === 'string' ? fate : fate.outcome))).toEqual(
        texts.flatMap(() => ['added', 'replaced', 'replaced']),
      )
      const starts = told.flatMap((fate, at) =>
        typeof fate === 'string' ? [] : [{ id: fate.id, key: texts[Math.floor(at / 3)] }],
      )
      expect((await startAll(cluster, member, starts)).cancelled.size).toBe(2 * texts.length)
    }
  })

  test('of any name share its slot, whatever its group is called', async () => {
    for (const [stream, group] of fc.sample(fc.tuple(streamName, groupName), 200)) {
      const own = Object.values(keysOf(stream, { group }))
      const slots = await slotsOf(own)
      expect([stream, new Set(slots).size]).toEqual([stream, 1])
    }
  })

  test('start with its prefix, so that one ACL pattern covers them', () => {
    for (const [kind, key] of Object.entries(keysOf('orders'))) {
      if (kind !== 'stream') expect(key).toMatch(/^\{orders\}:/)
    }
    for (const key of Object.values(keysOf('{acme}:orders'))) expect(key).toMatch(/^\{acme\}:orders/)
  })

  test('are all different, and no key of another group, producer or hour', () => {
    fc.assert(
      fc.property(streamName, groupName, groupName, (stream, one, other) => {
        fc.pre(one !== other)
        const first = Object.values(keysOf(stream, { group: one, producer: one, hour: one }))
        const second = Object.values(keysOf(stream, { group: other, producer: other, hour: other }))
        expect(new Set([...first, ...second]).size).toBe(first.length * 2 - 7) // stream, settings, what is delayed, what is cancelled, replays and what they hold
      }),
    )
  })

  test('are no keys of another stream, nor another stream', () => {
    fc.assert(
      fc.property(streamName, streamName, groupName, (one, other, group) => {
        fc.pre(one !== other && isAccepted(one) && isAccepted(other))
        const first = Object.values(keysOf(one, { group, producer: group, hour: group }))
        const second = Object.values(keysOf(other, { group, producer: group, hour: group }))
        expect(first.filter((key) => second.includes(key))).toEqual([])
      }),
      { numRuns: 5000 },
    )
  })

  test('are not shared with the stream that is named like their tag, for there is none', () => {
    expect(isAccepted('orders')).toBe(true)
    expect(isAccepted('{orders}')).toBe(false)
  })
})

function isAccepted(name: string): boolean {
  try {
    return keys.checkStreamName(name) === name
  } catch {
    return false
  }
}

describe('names', () => {
  test.each(['main', 'a', 'A.b-c_9', 'g'.repeat(64)])('%s is a group', (name) => {
    expect(keys.checkGroupName(name)).toBe(name)
  })

  test.each(['', 'a b', 'a:b', ':handback', '{a}', 'é', 'a\n', 'g'.repeat(65), 5, null, undefined])(
    '%j is no group',
    (name) => {
      expect(() => keys.checkGroupName(name)).toThrow(/^expected a group name/)
    },
  )

  test.each(['__other__', '__', 'millrace', 'millrace.audit', 'millrace-x'])('%s is reserved', (name) => {
    expect(() => keys.checkGroupName(name)).toThrow(/reserved/)
    expect(() => keys.checkGroupName(name)).toThrow(expect.objectContaining({ code: 'ERR_NAME' }))
  })

  test.each(['_a', 'a__b', 'millraces', 'my-millrace', 'Millrace'])('%s is not', (name) => {
    expect(keys.checkGroupName(name)).toBe(name)
  })

  test('no key of a stream is a stream name', () => {
    fc.assert(
      fc.property(streamName, groupName, (stream, group) => {
        for (const [kind, key] of Object.entries(keysOf(stream, { group, producer: group }))) {
          if (kind === 'stream') continue
          expect(() => keys.checkStreamName(key), key).toThrow(/millrace's own|expected a stream name/)
        }
      }),
    )
  })
})

describe('users that may touch one stream and its keys', () => {
  async function protectedServer(rules: readonly string[]) {
    const server = await startServer()
    const client = connectTo(server.url)
    const keyPatterns = ['~orders', '~{orders}:*']
    await client.acl('SETUSER', 'app', 'on', '>secret', 'resetkeys', 'resetchannels', ...keyPatterns, ...rules)
    return { client, url: server.url.replace('//', '//app:secret@') }
  }

  test.each([
    ['any command', ['+@all']],
    ['no command that is dangerous but INFO', ['+@all', '-@dangerous', '+info']],
  ])('publish and work there with %s', async (_what, rules) => {
    const { client, url } = await protectedServer(rules)
    const ran: unknown[] = []
    const worker = await startWorker({ redis: url, handlers: { x: (data) => void ran.push(data) } })
    const producer = newProducer({ redis: url })
    for (const n of [1, 2, 3]) await publish(producer, n)

    await eventually(() => expect(ran).toEqual([1, 2, 3]))
    await eventually(async () => expect(await tally(client)).toEqual({ completed: 3 }))
    expect(await worker.stop()).toEqual({ handedBack: 0, unsettled: 0 })
    expect(await pending(client)).toEqual([])
    expect((await client.keys('*')).filter((key) => !/^(orders$|\{orders\}:)/.test(key))).toEqual([])
  })

  test('bury, hand back and claim there too', async () => {
    const { client, url } = await protectedServer(['+@all'])
    const ran: string[] = []
    await client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    for (const fields of [
      ['job', 'x'],
      ['data', '{'],
    ])
      await client.xadd('orders', '*', ...fields)
    await client.xreadgroup('GROUP', 'main', 'gone', 'STREAMS', 'orders', '>')
    await startWorker({ redis: url, leaseMs: 500, handlers: { x: (_data, job) => void ran.push(job.id) } })

    await eventually(async () => expect(await client.xlen('{orders}:group:main:dead')).toBe(1))
    await eventually(() => expect(ran).toHaveLength(1))
    await eventually(async () => expect(await pending(client)).toEqual([]))
  })

  test('cannot publish to another stream, and hear why', async () => {
    const { client, url } = await protectedServer(['+@all'])
    const producer = newProducer({ redis: url, timeoutMs: 300_000 })
    await expect(producer.publish('x', 1, { stream: 'mails' })).rejects.toMatchObject({
      code: 'ERR_PUBLISH_REFUSED',
      published: 'no',
      message: expect.stringContaining('NOPERM') as string,
    })
    expect(await client.keys('*')).toEqual([])
  })
})
