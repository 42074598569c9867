import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { describe, expect, test } from 'vitest'
import { LOADER, startChild } from './helpers/child.ts'
import { eventually, waitFor } from './helpers/eventually.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

describe('threads and processes', () => {
  const fixture = new URL('./fixtures/thread.ts', import.meta.url)

  test('a thread runs TypeScript that imports TypeScript and packages', async () => {
    const [message] = (await once(new Worker(fixture, { execArgv: ['--import', LOADER] }), 'message')) as [unknown]
    expect(message).toEqual({ commands: 'function', port: 'number' })
  })

  test('a child process runs TypeScript, is heard and can be killed', async () => {
    const child = startChild(fixture, { args: ['one'], env: { GREETING: 'hello' } })
    await child.line(/^hello one$/)
    child.signal('SIGKILL')
    expect(await child.exited).toEqual({ code: null, signal: 'SIGKILL' })
  })

  test('a line that never comes fails as soon as the child has ended, with what it printed', async () => {
    const child = startChild(fixture, { args: ['leave'], env: { GREETING: 'bye' } })
    await expect(child.line(/never/)).rejects.toThrow(/no line \/never\/[^]*bye leave/)
  })
})

describe('eventually', () => {
  test('passes as soon as the assertion does, and gives its value', async () => {
    let calls = 0
    const value = await eventually(() => {
      expect(++calls).toBe(3)
      return 'done'
    })
    expect([value, calls]).toEqual(['done', 3])
  })

  test('fails with the last error', async () => {
    let calls = 0
    const failing = eventually(() => Promise.reject(new Error(`call ${++calls}`)), { timeoutMs: 50, intervalMs: 20 })
    await expect(failing).rejects.toThrow(/call [2-9]/)
    await expect(waitFor(() => false, { timeoutMs: 1, what: 'pigs fly' })).rejects.toThrow('pigs fly')
  })
})

describe('a Redis for each file', () => {
  const redis = withRedis()

  test('is filled here', async () => {
    expect(await redis.client.set('left', 'behind')).toBe('OK')
  })

  test('and empty again in the next test', async () => {
    expect(await redis.connect().dbsize()).toBe(0)
  })
})

describe('a controlled server', () => {
  test('with an append-only file has everything again after a kill, on the same port', async () => {
    const server = await startServer({ aof: true })
    const client = connectTo(server.url)
    await client.set('a', 1)
    await server.kill()
    await server.restart()
    expect(await client.get('a')).toBe('1')
    await server.restart()
    expect(await client.get('a')).toBe('1')
  })

  test('without one has nothing after a restart', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.set('a', 1)
    await server.restart()
    expect(await client.get('a')).toBe(null)
  })

  test('that is stopped keeps its connections and answers when it goes on', async () => {
    const server = await startServer()
    const client = connectTo(server.url, { maxRetriesPerRequest: 0 })
    await client.ping()
    server.stopProcess()
    const late = client.set('a', 1)
    expect(await Promise.race([late, new Promise((resolve) => setTimeout(resolve, 200, 'silent'))])).toBe('silent')
    server.continueProcess()
    expect(await late).toBe('OK')
  })

  test('that is stopped can still be killed and restarted', async () => {
    const server = await startServer({ aof: true })
    server.stopProcess()
    await server.restart()
    server.stopProcess()
    await server.kill()
    await server.restart()
    expect(await connectTo(server.url).ping()).toBe('PONG')
  })
})
