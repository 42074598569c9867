import { readdir, readFile, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Producer } from '../src/index.ts'
import { onEnd } from './helpers/cleanup.ts'
import { connectTo, startServer } from './helpers/redis.ts'

/**
 * What a script writes is one transaction in Redis's append-only file. A server that is killed in the middle of that write leaves half of
 * it. At its next start Redis cuts off what was no whole command, and leaves the others, with the beginning of a transaction that has
 * no end: at the start after that it takes all that was written since for a part of it (Redis 6.2 to 8, Valkey before its pull request
 * 4342). The file is whole again once it is written anew.
 */
test('a Redis that was killed in the middle of a write, and whose file was written anew then, has each job once after further restarts', async () => {
  const server = await startServer({ aof: true })
  const client = connectTo(server.url)
  const producer = new Producer({ redis: server.url, logger: false })
  onEnd(async () => void (await producer.close()))
  const publish = (from: number, to: number) =>
    Promise.all(
      Array.from({ length: to - from }, (_, at) =>
        producer.publish('count', from + at, { stream: 'orders', timeoutMs: 60_000 }),
      ),
    )
  await publish(0, 5)
  await publish(5, 15)
  await server.kill()
  await tearLastTransaction(server.dir)

  await server.restart()
  expect(await stored(client)).toEqual([0, 1, 2, 3, 4])
  await publish(15, 20)
  await server.kill()
  await server.restart()
  expect(await stored(client)).toEqual([0, 1, 2, 3, 4, 15, 16, 17, 18, 19])
})

/** Cuts the file off in the middle of the last append of its last transaction. */
async function tearLastTransaction(dir: string): Promise<void> {
  const names = (await readdir(dir, { recursive: true })).filter((name) => name.endsWith('.aof'))
  const texts = await Promise.all(names.map(async (name) => [name, await readFile(join(dir, name), 'latin1')] as const))
  const [name, text] = texts.find(([, found]) => found.includes('XADD')) ?? ['', '']
  const append = text.lastIndexOf('XADD', text.lastIndexOf('EXEC'))
  expect(append).toBeGreaterThan(text.lastIndexOf('MULTI'))
  await truncate(join(dir, name), append + 12)
}

async function stored(client: ReturnType<typeof connectTo>): Promise<number[]> {
  return (await client.xrange('orders', '-', '+')).map(([, fields]) => Number(fields[fields.indexOf('data') + 1]))
}
