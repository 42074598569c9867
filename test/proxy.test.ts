import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { eventually } from './helpers/eventually.ts'
import { type FaultProxy, startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { FrameReader } from './helpers/resp.ts'

const redis = withRedis()
const NO_RETRY = { maxRetriesPerRequest: 0, retryStrategy: () => null }
const isSetOf = (key: string) => (command: string[]) => command[0] === 'set' && command[1] === key

async function throughProxy(options = {}): Promise<{ proxy: FaultProxy; client: ReturnType<typeof connectTo> }> {
  const proxy = await startProxy(redis.url)
  const client = connectTo(proxy.url, { ...NO_RETRY, ...options })
  await client.ping()
  return { proxy, client }
}

test('commands and replies of any size and order pass unchanged', async () => {
  const { client } = await throughProxy()
  const big = 'é\r\n'.repeat(300_000)
  const replies = await Promise.all([client.set('big', big), client.get('big'), client.lrange('none', 0, -1)])
  expect(replies).toEqual(['OK', big, []])
  expect(await client.multi().incr('n').incr('n').get('none').exec()).toEqual([
    [null, 1],
    [null, 2],
    [null, null],
  ])
})

test('a swallowed reply leaves the command done and the client with a closed connection', async () => {
  const { proxy, client } = await throughProxy()
  const swallowed = proxy.swallowReplyTo(isSetOf('b'))
  const results = await Promise.allSettled([client.set('a', 1), client.set('b', 1), client.set('c', 1)])
  await swallowed
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected'])
  expect(await redis.client.get('b')).toBe('1')
})

test('a fault happens as often as it was asked for', async () => {
  const { proxy, client } = await throughProxy({ retryStrategy: () => 1, maxRetriesPerRequest: 5 })
  const swallowed = proxy.swallowReplyTo(([name]) => name === 'incr', 2)
  expect(await client.incr('n')).toBe(3)
  await swallowed
})

test('a swallowed reply on an open connection leaves it silent, and others alone', async () => {
  const { proxy, client } = await throughProxy()
  const other = connectTo(proxy.url)
  const swallowed = proxy.swallowReplyKeepOpen(isSetOf('a'))
  const unanswered = client.set('a', 1)
  await swallowed
  const later = client.set('later', 1)
  expect(await Promise.race([unanswered, later, sleep(200, 'silent')])).toBe('silent')
  expect(client.status).toBe('ready')
  expect(await other.mget('a', 'later')).toEqual(['1', '1'])
  const ended = Promise.allSettled([unanswered, later])
  client.disconnect()
  await ended
})

test('a cut before a command keeps it from the server, and those before it not', async () => {
  const { proxy, client } = await throughProxy()
  const cut = proxy.cutBefore(isSetOf('b'))
  const results = await Promise.allSettled([client.set('a', 1), client.set('b', 1)])
  await cut
  expect(results[1]?.status).toBe('rejected')
  await eventually(async () => expect(await redis.client.mget('a', 'b')).toEqual(['1', null]))
})

test('a held command waits, with those behind it, until it is released', async () => {
  const { proxy, client } = await throughProxy()
  const hold = proxy.holdBefore(isSetOf('a'))
  const done = Promise.all([client.set('a', 1), client.set('b', 1)])
  await hold.held
  await sleep(50)
  expect(await redis.client.mget('a', 'b')).toEqual([null, null])
  hold.release()
  expect(await done).toEqual(['OK', 'OK'])
})

test('a held command arrives late when its client has gone', async () => {
  const { proxy, client } = await throughProxy()
  const hold = proxy.holdBefore(isSetOf('a'))
  const failed = client.set('a', 1).catch(() => 'failed')
  await hold.held
  client.disconnect()
  expect(await failed).toBe('failed')
  hold.release()
  await eventually(async () => expect(await redis.client.get('a')).toBe('1'))
})

test('a cut resets every connection and a client can come back', async () => {
  const { proxy, client } = await throughProxy({ retryStrategy: () => 1 })
  const seen: string[] = []
  for (const event of ['close', 'ready']) client.on(event, () => seen.push(event))
  proxy.cut()
  await eventually(() => expect(seen).toEqual(['close', 'ready']))
  expect(await client.ping()).toBe('PONG')
  await eventually(() => expect(proxy.connections()).toBe(1))
})

test('a black hole closes nothing, forwards nothing, and lets through afterwards what was under way', async () => {
  const { proxy, client } = await throughProxy()
  proxy.blackhole(true)
  const late = client.set('a', 1)
  const newcomer = connectTo(proxy.url).ping()
  expect(await Promise.race([late, newcomer, sleep(200, 'nothing')])).toBe('nothing')
  expect([client.status, await redis.client.get('a')]).toEqual(['ready', null])
  proxy.blackhole(false)
  expect(await Promise.all([late, newcomer])).toEqual(['OK', 'PONG'])
})

test('published messages pass, though no command asked for them', async () => {
  const { proxy, client } = await throughProxy({ protocol: 2 })
  await client.subscribe('news')
  const message = once(client, 'message')
  await connectTo(proxy.url).publish('news', 'hello')
  expect(await message).toEqual(['news', 'hello'])
})

test('a push message of RESP3 is not taken for a reply', async () => {
  const proxy = await startProxy(redis.url)
  const socket = connect(Number(new URL(proxy.url).port), '127.0.0.1')
  let text = ''
  socket.on('data', (chunk) => (text += chunk.toString()))
  socket.write(frame('HELLO', '3') + frame('CLIENT', 'TRACKING', 'ON', 'BCAST') + frame('SET', 'a', '1'))
  await eventually(() => expect(text).toContain('invalidate'))
  const swallowed = proxy.swallowReplyTo(([name]) => name === 'get')
  socket.write(frame('PING') + frame('GET', 'a'))
  await Promise.all([swallowed, once(socket, 'close')])
  expect(text).toMatch(/\+PONG\r\n$/)
})

describe('frames', () => {
  const reply = '%2\r\n+a\r\n:1\r\n$4\r\né\r\n\r\n*3\r\n$-1\r\n*0\r\n_\r\n'
  const pushes = '>2\r\n+x\r\n+y\r\n|1\r\n+ttl\r\n:1\r\n~2\r\n#t\r\n,1.5\r\n*-1\r\n-ERR no\r\n'
  const bytes = Buffer.from(reply + pushes)

  test.each([1, 2, 3, 7, 1000])('are the same in chunks of %i bytes', (size) => {
    const reader = new FrameReader({ strings: true })
    const frames = []
    for (let at = 0; at < bytes.length; at += size) frames.push(...reader.read(bytes.subarray(at, at + size)))
    expect(frames.map(({ type }) => type)).toEqual(['%', '>', '|', '*', '-'])
    expect(Buffer.concat(frames.map((each) => each.bytes))).toEqual(bytes)
    expect(frames[0]?.strings).toEqual(['é\r\n'])
  })
})

function frame(...words: string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`
}

test('a delay holds every command back, in their order, and ends when it is set to 0', async () => {
  const { proxy, client } = await throughProxy()
  proxy.delay(50)
  const startedAtMs = performance.now()
  expect(await Promise.all([client.incr('n'), client.incr('n')])).toEqual([1, 2])
  expect(performance.now() - startedAtMs).toBeGreaterThan(90)
  proxy.delay(0)
  expect(await client.incr('n')).toBe(3)
})

test('another target gets the connections from then on, and the open ones are reset', async () => {
  const other = await startServer()
  const { proxy, client } = await throughProxy({ retryStrategy: () => 1, maxRetriesPerRequest: 5 })
  await client.set('where', 'here')
  proxy.retarget(other.url)
  expect(await client.get('where')).toBeNull()
})
