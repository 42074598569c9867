import { describe, expect, test } from 'vitest'
import type { Job } from '../src/index.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { pending, startWorker } from './helpers/workers.ts'

/** Entries that any client may put into a stream, seen by a real worker. */
const redis = withRedis()
const DEAD = '{orders}:group:main:dead'
const NOT_UTF8 = Buffer.from([0x22, 0xff, 0xfe, 0x22])
/** The `dead-*` names and values before the raw fields. */
const PROVENANCE_FIELDS = 14

type Field = string | Buffer

async function xadd(fields: readonly Field[], id = '*'): Promise<string> {
  return (await redis.client.call('XADD', 'orders', id, ...fields)) as string
}

/** A worker for job `x` that notes what it runs, and the dead letters beside it. */
async function start() {
  const seen: { data: unknown; job: Pick<Job, 'id' | 'attempt' | 'deliveries'> }[] = []
  const x = (data: unknown, { id, attempt, deliveries }: Job) =>
    void seen.push({ data, job: { id, attempt, deliveries } })
  const worker = await startWorker({ redis: redis.url, maxDeliveries: 1, unknownJobMs: 0, handlers: { x } })
  return { worker, seen }
}

/** Waits until the worker has run an ordinary job too and has nothing left; gives what else it has run. */
async function goesOn({ seen }: Awaited<ReturnType<typeof start>>): Promise<typeof seen> {
  const id = await xadd(['job', 'x', 'data', '"last"'])
  const last = { data: 'last', job: { id, attempt: 1, deliveries: 1 } }
  await eventually(() => expect(seen).toContainEqual(last))
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  return seen.filter(({ data }) => data !== 'last')
}

interface DeadLetter {
  provenance: Record<string, string>
  raw: Buffer[]
}

async function deadLetters(): Promise<DeadLetter[]> {
  const entries = await redis.client.xrangeBuffer(DEAD, '-', '+')
  return entries.map(([, fields]) => {
    const told = fields.slice(0, PROVENANCE_FIELDS * 2).map((field) => field.toString())
    const provenance: Record<string, string> = {}
    for (let at = 0; at < told.length; at += 2) provenance[told[at] ?? ''] = told[at + 1] ?? ''
    return { provenance, raw: fields.slice(PROVENANCE_FIELDS * 2) }
  })
}

const bytes = (fields: readonly Field[]): Buffer[] => fields.map((field) => Buffer.from(field))
const pairs = (count: number): string[] => Array.from({ length: count }, (_, n) => [`field${n}`, `value${n}`]).flat()

describe('an entry that is a job', () => {
  test.each<[string, Field[], unknown]>([
    ['a name and nothing else', ['job', 'x'], null],
    ['fields in another order', ['data', '{"a":1}', 'job', 'x'], { a: 1 }],
    ['a genuine replacement character', ['job', 'x', 'data', '"\uFFFD"'], '\uFFFD'],
    ['duplicates, of which the first are good', ['job', 'x', 'data', '1', 'job', '?', 'data', NOT_UTF8], 1],
    ['bytes that are no UTF-8 in a field nobody reads', [NOT_UTF8, NOT_UTF8, 'job', 'x', 'data', '1'], 1],
    ['4 000 fields beside it', [...pairs(4000), 'job', 'x', 'data', '1'], 1],
    ['fields named like the provenance of a dead letter', ['dead-reason', 'no', 'job', 'x', 'data', '1'], 1],
    ['keys that aim at prototypes', ['job', 'x', 'data', '{"__proto__":{"a":1}}'], JSON.parse('{"__proto__":{"a":1}}')],
  ])('with %s is run', async (_what, fields, data) => {
    const worker = await start()
    const id = await xadd(fields)
    const run = await goesOn(worker)

    expect(run).toEqual([{ data, job: { id, attempt: 1, deliveries: 1 } }])
    expect(await deadLetters()).toEqual([])
  })

  test('with an id and an attempt of its own is run under them', async () => {
    const worker = await start()
    const id = '18446744073709551615-18446744073709551615'
    await xadd(['job', 'x', 'id', id, 'attempt', '4'])
    const run = await goesOn(worker)

    expect(run).toEqual([{ data: null, job: { id, attempt: 5, deliveries: 1 } }])
  })

  test('whose data is nested 200 000 deep is run', async () => {
    const worker = await start()
    await xadd(['job', 'x', 'data', '['.repeat(200_000) + ']'.repeat(200_000)])
    const run = await goesOn(worker)

    expect(run.map(({ data }) => Array.isArray(data))).toEqual([true])
  })

  test('with the highest ids there are is run and acked', async () => {
    const { seen } = await start()
    const ids = ['18446744073709551614-7', '18446744073709551615-18446744073709551615']
    for (const id of ids) await xadd(['job', 'x'], id)

    await eventually(() => expect(seen.map(({ job }) => job.id)).toEqual(ids))
    await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  })
})

describe('an entry that is none', () => {
  test.each<[string, Field[]]>([
    ['no field job', ['data', '1']],
    ['an empty name', ['job', '', 'data', '1']],
    ['a name that is no UTF-8', ['job', Buffer.from([0xc3, 0x28])]],
    ['bad JSON', ['job', 'x', 'data', '{"order":']],
    ['empty data', ['job', 'x', 'data', '']],
    ['data that is no UTF-8', ['job', 'x', 'data', NOT_UTF8]],
    ['data that is no UTF-8 and an own id', ['data', NOT_UTF8, 'id', '1-1', 'job', 'x']],
    ['an id that is none', ['job', 'x', 'id', 'dead 1-1']],
    ['an attempt that is no count', ['job', 'x', 'attempt', '-1']],
    ['an unknown codec', ['job', 'x', 'data', NOT_UTF8, 'codec', 'msgpack']],
    ['fields named like its provenance', ['dead-reason', 'none', 'dead-fields', '0', 'dead-packed', NOT_UTF8]],
    ['empty names and values', ['', '', '', '']],
    ['nesting that never ends', ['job', 'x', 'data', '['.repeat(200_000)]],
    ['a thousand fields', pairs(1000)],
  ])('with %s is dead-lettered as it is, and the worker goes on', async (_what, fields) => {
    const worker = await start()
    const id = await xadd(fields)
    const run = await goesOn(worker)

    const [letter, ...others] = await deadLetters()
    expect(letter?.raw).toEqual(bytes(fields))
    expect(letter?.provenance).toMatchObject({
      ...{ 'dead-reason': 'malformed', 'dead-origin': id, 'dead-source': 'stream' },
      ...{ 'dead-deliveries': '1', 'dead-worker': worker.worker.consumer, 'dead-fields': String(fields.length / 2) },
    })
    expect(others).toEqual([])
    expect(run).toEqual([])
  })

  test('with 4 000 fields is dead-lettered with all of them packed into one', async () => {
    const worker = await start()
    const fields: Field[] = ['dead-reason', NOT_UTF8, ...pairs(3999)]
    await xadd(fields)
    await goesOn(worker)

    const [letter] = await deadLetters()
    expect(letter?.provenance).toMatchObject({ 'dead-reason': 'malformed', 'dead-fields': '4000' })
    expect(letter?.raw[0]?.toString()).toBe('dead-packed')
    const unpack = 'return cmsgpack.unpack(ARGV[1])'
    const unpacked = await redis.client.callBuffer('EVAL', unpack, 0, letter?.raw[1] ?? '')
    expect(unpacked).toEqual(bytes(fields))
  })

  test('has its provenance first and in a fixed order', async () => {
    await goesOn(await startWith(['data', '1']))

    const names = [
      'reason',
      'id',
      'origin',
      'source',
      'attempts',
      'total-attempts',
      'deliveries',
      'worker',
      'error',
      'message',
    ].concat(['stack', 'first-failed', 'at', 'fields'])
    expect(Object.keys((await deadLetters())[0]?.provenance ?? {})).toEqual(names.map((name) => `dead-${name}`))
  })

  test('is found by its job id, and stays in the stream', async () => {
    await goesOn(await startWith(['id', '7-8', 'data', '1']))

    const [deadId] = (await redis.client.xrange(DEAD, '-', '+'))[0] ?? []
    expect(await redis.client.hgetall('{orders}:group:main:index')).toEqual({ '7-8': `dead ${deadId}` })
    expect(await redis.client.xlen('orders')).toBe(2)
  })

  test('though it is named like a property of every object runs nothing: no worker has a handler for it', async () => {
    const worker = await start()
    for (const name of ['constructor', '__proto__', 'toString']) await xadd(['job', name])
    const run = await goesOn(worker)

    const reasons = (await deadLetters()).map(({ provenance }) => provenance['dead-reason'])
    expect(reasons).toEqual(['unknown-job', 'unknown-job', 'unknown-job'])
    expect(run).toEqual([])
  })

  async function startWith(fields: readonly Field[]) {
    const worker = await start()
    await xadd(fields)
    return worker
  }
})

test('a hundred bad entries between good ones cost none of the good ones', async () => {
  for (let n = 0; n < 200; n++)
    await xadd(n % 2 === 0 ? ['job', 'x', 'data', String(n)] : ['job', 'x', 'data', NOT_UTF8])
  const worker = await start()
  const run = await goesOn(worker)

  const even = Array.from({ length: 100 }, (_, n) => n * 2)
  const numbers = run.map(({ data }) => Number(data))
  expect(numbers.toSorted((a, b) => a - b)).toEqual(even)
  expect(await deadLetters()).toHaveLength(100)
})

describe('a handler that throws', () => {
  test.each<[string, Error]>([
    ['nothing', undefined as unknown as Error],
    ['an object without a text', Object.create(null) as Error],
    ['an error whose message is no text', Object.assign(new Error(), { message: undefined })],
    ['an error whose name is no text', Object.assign(new Error('x'), { name: undefined })],
    [
      'an error that throws when it is read',
      Object.defineProperty(new Error(), 'message', { get: () => JSON.parse('') as string }),
    ],
  ])('%s has its job dead-lettered, and the worker goes on', async (_what, thrown) => {
    const ran: string[] = []
    const bad = () => Promise.reject(thrown)
    const handlers = { bad, good: (_data: unknown, job: Job) => void ran.push(job.id) }
    await startWorker({ redis: redis.url, retry: { attempts: 1 }, handlers })
    await xadd(['job', 'bad'])
    await eventually(async () => expect(await deadLetters()).toHaveLength(1))
    const id = await xadd(['job', 'good'])

    await eventually(() => expect(ran).toEqual([id]))
    expect((await deadLetters())[0]?.provenance).toMatchObject({ 'dead-reason': 'attempts' })
  })
})
