import { describe, expect, test } from 'vitest'
import { cancelledKey } from '../../src/redis/keys.ts'
import { withRedis } from '../helpers/redis.ts'
import { buryByHand, delayedId, schedule } from '../helpers/scheduled.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const cancel = (...args: string[]) => millrace(['cancel', ...args], { redis: redis.url })

/** One entry that main has with a worker, and that billing has settled. */
async function arrangeOrders(): Promise<string> {
  const id = (await redis.client.xadd('orders', '*', 'job', 'mail')) as string
  for (const group of ['billing', 'main']) {
    await redis.client.xgroup('CREATE', 'orders', group, '0')
    await redis.client.xreadgroup('GROUP', group, 'w', 'STREAMS', 'orders', '>')
  }
  await redis.client.xack('orders', 'billing', id)
  return id
}

describe('millrace cancel', () => {
  test('says for each group where it had the job and what became of it', async () => {
    const id = await arrangeOrders()
    const { code, stdout, stderr } = await cancel('orders', id)
    expect(code).toBe(0)
    expect(stdout).toBe('group    was       now\nbilling  finished  -\nmain     running   cancelled\n')
    expect(stderr).toMatch(/^a worker has it: its signal aborts within a second/)
  })

  test('of one group cancels for that group', async () => {
    const id = await arrangeOrders()
    expect((await cancel('orders', id, '--group', 'main')).stdout).toBe(
      'group  was      now\nmain   running  cancelled\n',
    )
    expect(await redis.client.zrange(cancelledKey('orders'), 0, '-1')).toEqual([`${id} main`])
  })

  test('prints one document of stable names with --json', async () => {
    const id = await arrangeOrders()
    await redis.client.xack('orders', 'main', id)
    await buryByHand(redis.client, id)
    const { code, stdout } = await cancel('orders', id, '--json')
    expect([code, JSON.parse(stdout)]).toEqual([
      0,
      {
        schemaVersion: 1,
        stream: 'orders',
        id,
        cancelled: true,
        delayed: false,
        groups: [
          { group: 'billing', was: 'finished', cancelled: false },
          { group: 'main', was: 'dead', cancelled: true },
        ],
      },
    ])
  })

  test.each([
    ['cancel', []],
    ['scheduled', ['cancel']],
  ])('takes a delayed publish out, as millrace %s does with %j', async (command, verbs) => {
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    expect(await millrace([command, ...verbs, 'orders', id], { redis: redis.url })).toEqual({
      code: 0,
      stdout: 'group  was      now\n-      delayed  cancelled\n',
      stderr: '',
    })
  })

  test('ends with 4 where the job is settled, and says so', async () => {
    const id = await arrangeOrders()
    expect(await cancel('orders', id, '--group', 'billing')).toEqual({
      code: 4,
      stdout: 'group    was       now\nbilling  finished  -\n',
      stderr: 'nothing to cancel: the job is settled\n',
    })
    const { code, stdout } = await cancel('orders', id, '--group', 'billing', '--json')
    expect([code, JSON.parse(stdout)]).toEqual([4, expect.objectContaining({ cancelled: false })])
  })

  test('ends with 4 where the stream, the group or the job does not exist', async () => {
    expect(await cancel('orders', '1-0')).toMatchObject({ code: 4, stdout: '' })
    const id = await arrangeOrders()
    const unknown = await cancel('orders', '1-0')
    expect(unknown).toMatchObject({ code: 4, stdout: '' })
    expect(unknown.stderr).toMatch(/stream orders has no job 1-0: it has history since \d{4}-/)
    expect((await cancel('orders', id, '--group', 'mian')).stderr).toContain('did you mean main?')
  })

  test('ends with 2 where the id is none, and says what one looks like', async () => {
    const { code, stderr } = await cancel('orders', '17-x')
    expect(code).toBe(2)
    expect(stderr).toBe('error: expected a job id such as 1795245552380-0, got "17-x"\n')
  })
})
