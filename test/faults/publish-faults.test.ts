import { describe, expect, test } from 'vitest'
import { onEnd } from '../helpers/cleanup.ts'
import { startProxy } from '../helpers/proxy.ts'
import { addBallast, DISTURBING, openAdmin, SLOW_TO_LOAD, STOPPING, type Ground } from '../helpers/publish-faults.ts'
import { Field } from '../helpers/publish-field.ts'
import { startServer } from '../helpers/redis.ts'

/**
 * Under load, with every durability at once. What is promised is the same whatever happens: a job whose publisher was told
 * that Redis has it is there once, one that was refused is not there, one that is unknown was on its way, and none hangs.
 */

async function newGround(): Promise<Ground> {
  const server = await startServer(SLOW_TO_LOAD)
  const admin = openAdmin(server.url)
  onEnd(() => admin.disconnect())
  return { server, admin, proxy: await startProxy(server.url) }
}

async function newField(ground: Ground): Promise<Field> {
  const field = new Field(ground)
  onEnd(() => field.close())
  return field
}

describe('every publish is told the truth while Redis', () => {
  test.each(Object.entries(STOPPING))('%s', async (name, fault) => {
    const ground = await newGround()
    if (name.includes('LOADING')) await addBallast(ground.admin)
    const field = await newField(ground)
    await field.flows()
    const end = await fault(ground)
    await field.stalls()
    await end()
    await field.flows()

    const { violations, counts } = await field.settle()
    expect(violations).toEqual([])
    expect(counts.no + counts.unknown).toBeGreaterThan(0)
  })

  test.each(Object.entries(DISTURBING))('%s', async (_name, fault) => {
    const ground = await newGround()
    const field = await newField(ground)
    for (let round = 0; round < 3; round++) {
      await field.flows()
      const end = await fault(ground)
      await end()
    }
    await field.flows()

    const { violations, counts } = await field.settle()
    expect(violations).toEqual([])
    expect(counts.in).toBeGreaterThan(0)
  })
})
