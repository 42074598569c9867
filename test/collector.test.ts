import { expect, test } from 'vitest'
import { monotonicMs } from '../src/clock.ts'
import { Collector } from '../src/metrics/collector.ts'

/** Readings that are answered by hand, in their order. */
function readings() {
  const answers: ((value: number) => void)[] = []
  return { ask: () => new Promise<number>((resolve) => answers.push(resolve)), answers }
}

/** Until what was answered has been taken. */
const turn = () => new Promise((resolve) => setImmediate(resolve))
const inTime = () => monotonicMs() + 60_000
const never = () => monotonicMs()

test('a reading that takes longer than a scrape waits is told at the next one, while a newer one is on its way', async () => {
  const collector = new Collector<number>('streams', 0)
  const { ask, answers } = readings()
  expect(await collector.run(ask, never())).toMatchObject({
    collector: 'streams',
    fault: 'Redis did not answer in time',
  })
  expect([collector.told, collector.failures]).toEqual([undefined, 1])
  answers[0]?.(1)
  await turn()

  expect(await collector.run(ask, never())).toBeUndefined()
  expect([collector.told, collector.failures, answers.length]).toEqual([1, 1, 2])
  answers[1]?.(2)
  await turn()
  expect(await collector.run(ask, never())).toBeUndefined()
  expect([collector.told, answers.length]).toEqual([2, 3])
})

test('a reading that fails after a slow one is not hidden behind what was told before', async () => {
  const collector = new Collector<number>('streams', 0)
  const { ask, answers } = readings()
  await collector.run(ask, never())
  answers[0]?.(1)
  await turn()
  const failing = () => Promise.reject(new Error('closed'))
  await collector.run(failing, never())
  await turn()
  await collector.run(failing, inTime())
  expect([collector.told, collector.failures]).toEqual([undefined, 2])
})

test('readings that come in time are asked for anew each time', async () => {
  const collector = new Collector<number>('streams', 0)
  let count = 0
  const ask = async () => ++count
  await collector.run(ask, inTime())
  await collector.run(ask, inTime())
  expect([collector.told, count, collector.failures]).toEqual([2, 2, 0])
})
