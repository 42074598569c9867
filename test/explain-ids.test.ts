import { describe, expect, test } from 'vitest'
import type { Explanation } from '../src/index.ts'
import { settingsKey, tallyKey } from '../src/redis/keys.ts'
import { tallySlot } from '../src/redis/entry-id.ts'
import { expectSound } from './helpers/explained.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { buryByHand, delayedId, promoteByHand, redeliverByHand, schedule } from './helpers/scheduled.ts'
import { add } from './helpers/workers.ts'

const redis = withRedis()

const makeGroup = (group = 'main', start = '0') => redis.client.xgroup('CREATE', 'orders', group, start, 'MKSTREAM')

async function explain(id: string, options: { group?: string } = {}): Promise<Explanation & { text: string }> {
  const explanation = await newInspector(redis.url).explain('orders', id, options)
  expectSound(explanation)
  return { ...explanation, text: explanation.sentences.map(({ text }) => text).join('\n') }
}

const states = ({ groups }: Explanation) => groups.map(({ state }) => state.at)
const commands = ({ sentences }: Explanation) =>
  sentences.flatMap(({ command }) => (command === null ? [] : [command.join(' ')]))

/** Settled by every group, and removed. */
async function trim(id: string): Promise<void> {
  await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
  await redis.client.xack('orders', 'main', id)
  await redis.client.xtrim(
    'orders',
    'MINID',
    `(${id}`.replace('(', '').replace(/-(\d+)$/, (_, n) => `-${Number(n) + 1}`),
  )
}

describe('a delayed publish', () => {
  test('is told with when it comes, and is in no group until then', async () => {
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    const alone = await explain(id)
    expect([alone.isKnown, alone.groups]).toEqual([true, []])
    await makeGroup()
    const told = await explain(id)
    expect(states(told)).toEqual(['delayed'])
    expect(told.text).toMatch(/It was published with a delay, and comes into the stream .+Z \(in \d+s\)\./)
    expect(commands(told)).toEqual([`scheduled promote orders ${id}`])
    await schedule(redis.client, { id, due: 1000 })
    expect((await explain(id)).text).toContain('was due 1970-01-01T00:00:01Z')
    await schedule(redis.client, { id, due: '+inf', error: 'WRONGTYPE of a \u001b[2J key' })
    const aside = await explain(id)
    expect(aside.delayed).toEqual({ dueMs: null, problem: 'WRONGTYPE of a \u001b[2J key' })
    expect(aside.text).toContain(
      'set aside: it could not be moved into the stream when it was due: "WRONGTYPE of a [2J key"',
    )
  })

  test('is found in the stream under its own id, and under that of its entry', async () => {
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    for (let n = 0; n < 700; n++) await add(redis.client, 'other')
    const entryId = (await promoteByHand(redis.client, { id })) ?? ''
    await makeGroup()
    const told = await explain(id)
    expect([told.job?.entryId, states(told), told.asked]).toEqual([entryId, ['not-delivered'], null])
    expect(told.text).toContain(`as entry ${entryId}.`)
    const byEntry = await explain(entryId)
    expect([byEntry.id, byEntry.asked]).toEqual([id, { id: entryId, is: 'entry', group: null }])
    expect(byEntry.text).toMatch(new RegExp(`^${entryId} is the id of an entry of the stream; its job is ${id}\\.`))
  })

  test('that is not found within the bound says how far it was looked for, and how to go on', async () => {
    const id = `${await serverMs(redis.client)}-1000000000000001`
    const fill = `for n = 1, 5000 do redis.call('XADD', KEYS[1], '*', 'job', 'x') end`
    await redis.client.eval(fill, 1, 'orders')
    await makeGroup()
    const told = await explain(id)
    expect([told.isKnown, states(told)]).toEqual([false, ['unknown']])
    const { lookedTo } = told
    const [[looked = ''] = []] = (await redis.client.xrange('orders', '-', '+', 'COUNT', 4000)).slice(-1)
    expect(lookedTo).toBe(looked)
    expect(commands(told)).toEqual([`find orders --where id == "${id}" --from ${lookedTo} --limit 1`])
  })

  test('that was cancelled before it was due, or never was, is unknown', async () => {
    await makeGroup()
    await add(redis.client, 'mail')
    const told = await explain(await delayedId(redis.client))
    expect([told.isKnown, told.text]).toEqual([
      false,
      expect.stringContaining('was cancelled before it was due, or never was'),
    ])
  })
})

describe('an id that is no job of the stream', () => {
  test('within the history never was, or was deleted', async () => {
    const first = await add(redis.client, 'mail')
    const id = await add(redis.client, 'mail')
    await add(redis.client, 'mail')
    await makeGroup()
    await redis.client.xdel('orders', id)
    const told = await explain(id)
    expect([told.isKnown, states(told), told.job]).toEqual([false, ['unknown'], null])
    await schedule(redis.client, { id: await delayedId(redis.client), stream: 'later' })
    const later = await newInspector(redis.url).explain('later', id)
    expect([later.isKnown, later.groups]).toEqual([false, []])
    expect(later.sentences[0]?.text).toContain('the id is newer than the newest entry')
    expect(told.text).toContain('so it never was, or somebody deleted it')
    expect(commands(told)[0]).toMatch(/^find orders --from \d{4}-.*Z --to \d{4}-.*Z$/)
    await redis.client.del('orders')
    await makeGroup()
    await redis.client.xadd('orders', first, 'job', 'mail')
    expect((await explain('5-0')).text).toContain('older than the first entry that the stream ever had')
  })

  test('above the newest entry says which that is', async () => {
    const newest = await add(redis.client, 'mail')
    await makeGroup()
    for (const id of [
      '9999999999999-0',
      '18446744073709551615-18446744073709551615',
      '9999999999999-1000000000000001',
    ]) {
      const told = await explain(id)
      expect([told.isKnown, states(told)]).toEqual([false, ['unknown']])
      expect(told.text).toContain(`the id is newer than the newest entry, which is ${newest}`)
    }
  })

  test('older than the history is told with the time since when there is one, and with what its minute came to', async () => {
    await makeGroup()
    const id = await add(redis.client, 'mail')
    const kept = await add(redis.client, 'mail')
    await trim(id)
    const told = await explain(id)
    expect([told.isKnown, states(told), told.history.oldestId, told.history.hasLost]).toEqual([
      false,
      ['trimmed'],
      kept,
      true,
    ])
    expect(told.text).toContain('the id is older than the history of the stream')
    const group = (one: Explanation) => one.groups[0]?.sentences.map(({ text }) => text).join(' ')
    expect(group(told)).toMatch(/^The stream has history since \d{4}-.*Z \(.*: nothing is counted\.$/)
    const { hour, minute } = tallySlot(id)
    await redis.client.hset(tallyKey('orders', 'main', hour), `${minute}:completed`, 12)
    expect(group(await explain(id))).toMatch(/: 12 completed\.$/)
    await redis.client.xtrim('orders', 'MAXLEN', 0)
    expect((await explain(id)).text).toContain('Stream orders holds no entries.')
  })

  test('is the id of a dead letter or of a redelivery entry of a group: then its job is meant', async () => {
    await makeGroup()
    await makeGroup('billing')
    // Of old: what dies in the same millisecond may have the id of a job, and then that is meant.
    const id = '1700000000000-0'
    await redis.client.xadd('orders', id, 'job', 'mail')
    const deadId = await buryByHand(redis.client, id, 'billing')
    const told = await explain(deadId)
    expect([told.id, told.asked]).toEqual([id, { id: deadId, is: 'dead letter', group: 'billing' }])
    expect(states(told)).toEqual(['dead', 'not-delivered'])
    expect(told.text).toMatch(new RegExp(`^${deadId} is the id of a dead letter of group billing; its job is ${id}\\.`))
    const other = '1700000000001-0'
    await redis.client.xadd('orders', other, 'job', 'mail')
    const entry = await redeliverByHand(redis.client, other, 'billing')
    expect((await explain(entry)).asked).toEqual({ id: entry, is: 'entry of the redelivery stream', group: 'billing' })
  })
})

test('a trimmed job that one group still has is settled in the others', async () => {
  await makeGroup()
  await makeGroup('billing')
  const id = await add(redis.client, 'send')
  await add(redis.client, 'mail')
  await trim(id)
  await buryByHand(redis.client, id, 'billing')
  const told = await explain(id)
  expect([told.isKnown, states(told)]).toEqual([true, ['dead', 'settled']])
  expect(told.job).toMatchObject({ name: 'mail', entryId: null })
})

test('a copy that a replay made is told as one, also when it is settled and has left nothing but counts', async () => {
  await makeGroup()
  const original = await add(redis.client, 'mail')
  const id = `${await serverMs(redis.client)}-2000000000000007`
  const redelivery = '{orders}:group:main:redelivery'
  await redis.client.xgroup('CREATE', redelivery, 'main', '0', 'MKSTREAM')
  const fields = ['job', 'mail', 'data', '1', 'id', id, 'replay-of', original]
  const entry = (await redis.client.xadd(redelivery, '*', ...fields)) as string
  await redis.client.hset('{orders}:group:main:index', id, `redelivery ${entry}`)
  const told = await explain(id)
  expect([states(told), told.job?.replayOf]).toEqual([['not-delivered'], original])
  expect(told.text).toContain(`It is a copy that a replay made of "${original}".`)
  await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', redelivery, '>')
  expect(states(await explain(id))).toEqual(['pending'])
  await redis.client.del(redelivery, '{orders}:group:main:index')
  expect((await explain(id)).isKnown).toBe(false)
  const { hour, minute } = tallySlot(id)
  await redis.client.hset(tallyKey('orders', 'main', hour), { [`${minute}:replayed`]: 9, [`${minute}:completed`]: 9 })
  await redis.client.hset(settingsKey('orders'), 'copied-seq', 9)
  expect(states(await explain(id))).toEqual(['settled'])
  expect((await explain(id.replace(/7$/, '10'))).isKnown).toBe(false)
})

test('hostile names and fields stay texts', async () => {
  const name = 'x\u001b]0;owned\u0007\n'.repeat(300)
  const id = (await redis.client.xadd(
    'orders',
    '*',
    'job',
    name,
    'id',
    'nonsense',
    'replay-of',
    name,
    'data',
    '\u0000',
  )) as string
  const told = await explain(id)
  expect([told.isKnown, told.job?.bytes]).toEqual([true, 1])
  expect(told.text).not.toMatch(/[^\n\P{Cc}]/u)
  expect(told.text.length).toBeLessThan(1500)
  expect(told.text).toContain('No group reads the stream yet')
})

describe('refused before anything else', () => {
  const asked = (...args: Parameters<ReturnType<typeof newInspector>['explain']>) =>
    newInspector(redis.url).explain(...args)

  test('are ids, names and options that are none', async () => {
    for (const id of ['', '1', '1-', '01-0', 'x', '1-0 ', '99999999999999999999-0']) {
      await expect(asked('orders', id)).rejects.toThrow('expected a job id such as')
    }
    await expect(asked('or ders', '1-0')).rejects.toThrow('expected a stream name')
    await expect(asked('orders', '1-0', { group: 'a b' })).rejects.toThrow('expected a group name')
    await expect(asked('orders', '1-0', { payload: 1 as unknown as boolean })).rejects.toThrow('expected `payload`')
    await expect(asked('orders', '1-0', { gruop: 'x' } as object)).rejects.toThrow('did you mean `group`?')
  })

  test('are streams and groups that are not there, with what may have been meant', async () => {
    await add(redis.client, 'mail')
    await makeGroup('billing')
    await redis.client.sadd('millrace:streams', 'orders')
    await expect(asked('order', '1-0')).rejects.toThrow('stream order does not exist (did you mean orders?)')
    await expect(asked('orders', '1-0', { group: 'biling' })).rejects.toThrow(/did you mean .?billing/)
    await redis.client.set('text', '1')
    await expect(asked('text', '1-0')).rejects.toThrow('holds a string, not a stream')
  })

  test('are more than 100 groups, of which one must be named', async () => {
    const id = await add(redis.client, 'mail')
    for (let n = 0; n < 101; n++) await makeGroup(`g${n}`)
    await expect(asked('orders', id)).rejects.toThrow('name one')
    expect((await explain(id, { group: 'g100' })).groups).toHaveLength(1)
  })
})
