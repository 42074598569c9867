import { describe, expect, test } from 'vitest'
import { workersInfoKey, workersKey } from '../../src/redis/keys.ts'
import { makeGroup } from '../helpers/dead.ts'
import { serverMs, withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const workers = (...args: string[]) => millrace(['workers', ...args], { redis: redis.url })

/** One that lives, one that died with an entry, and an entry that was handed back. */
async function arrange(): Promise<void> {
  await makeGroup(redis.client)
  for (const n of [1, 2, 3]) await redis.client.xadd('orders', `${n}-0`, 'job', 'mail')
  await redis.client.xreadgroup('GROUP', 'main', 'died', 'COUNT', 2, 'STREAMS', 'orders', '>')
  await redis.client.xclaim('orders', 'main', ':handback', 0, '1-0')
  await redis.client.xreadgroup('GROUP', 'main', 'lives', 'STREAMS', 'orders', '>')
  const now = await serverMs(redis.client)
  await redis.client.zadd(workersKey('orders', 'main'), now + 4000, 'lives', now - 90_000, 'died')
  const about =
    '{"host":"box\\u001b[31m","pid":77,"version":"0.1.0","node":"v20","slots":8,"running":1,"perSecond":12.5}'
  await redis.client.hset(workersInfoKey('orders', 'main'), 'lives', about)
}

describe('millrace workers', () => {
  test('shows a row for each worker, those alive first, and what was handed back', async () => {
    await arrange()
    const { code, stdout, stderr } = await workers('orders', 'main')
    const rows = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.trim().split(/ {2,}/))
    expect(rows).toEqual([
      ['worker', 'host', 'pid', 'seen', 'busy', 'jobs/s', 'pending', 'version'],
      ['lives', 'box [31m', '77', '0.0s', '1/8', '12.5', '1', '0.1.0'],
      ['died', '-', '-', expect.stringMatching(/^dead 9\ds$/), '-', '0.0', '1', '-'],
    ])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '1 entry handed back, for the next worker that has room\n' })
  })

  test('prints one document of stable names with --json', async () => {
    await arrange()
    const document = JSON.parse((await workers('orders', 'main', '--json')).stdout) as { workers: object[] }
    expect(document).toMatchObject({ schemaVersion: 1, stream: 'orders', group: 'main', handedBack: 1, more: false })
    expect(Object.keys(document.workers[0] ?? {})).toEqual(
      'worker,host,pid,version,node,startedMs,slots,running,perSecond,lastSeenMs,seenAgoMs,isAlive,pending,onRedelivery,idleMs'.split(
        ',',
      ),
    )
  })

  test('says that there are none, and that is no error; a group that is not there is one', async () => {
    await makeGroup(redis.client)
    expect(await workers('orders', 'main')).toEqual({
      code: 0,
      stdout: '',
      stderr: 'group main of orders has no workers\n',
    })
    expect(await workers('orders', 'mian')).toMatchObject({ code: 4, stdout: '' })
    expect((await workers('--help')).stdout.match(/^ {2}\$ millrace workers /gm)?.length).toBeGreaterThanOrEqual(2)
  })
})
