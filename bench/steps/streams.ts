import { Registry } from 'prom-client'
import { Producer, Worker, type WorkerOptions } from '../../src/index.ts'
import { repeated } from '../contenders/millrace.ts'
import { GROUP } from '../contenders/stream.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { expectCount } from './expect-count.ts'
import { seenThrough } from './seen-through.ts'
import { Tally } from './tally.ts'
import type { ControlTask, Figures } from './task.ts'

const WEIGHT = 3

/**
 * One worker on two streams that both have jobs, weights 3 and 1, beside one on a single stream, in one process. How well the
 * weights are kept is seen while both have work: in what was started until three quarters of the heavier one's were.
 */
export async function measureStreams(url: string, { jobs, warmUpJobs, concurrency }: ControlTask): Promise<Figures> {
  const producer = new Producer({ redis: url, registry: new Registry() })
  const each = Math.ceil(jobs / 2)
  const fill = (stream: string, count: number) =>
    producer.publishMany(JOB_NAME, repeated(PAYLOAD, count), { stream }).then(() => stream)
  const run = async (count: number, streams: NonNullable<WorkerOptions['streams']> | string) => {
    const starts: string[] = []
    const tally = new Tally({ skip: 0, timed: count })
    const worker = new Worker({
      redis: url,
      ...(typeof streams === 'string' ? { stream: streams } : { streams }),
      group: GROUP,
      concurrency,
      registry: new Registry(),
      handlers: {
        [JOB_NAME]: async (_data: unknown, { stream }: { stream: string }) => {
          starts.push(stream)
          tally.hit()
        },
      },
    })
    await worker.start()
    const elapsedMs = await seenThrough(worker, tally, count)
    const perSecond = (count / elapsedMs) * 1000
    await worker.stop()
    expectCount('handler calls', count, tally.calls)
    return { perSecond, starts }
  }

  await run(warmUpJobs, await fill('warm-up', warmUpJobs))
  const one = await run(jobs, await fill('one', jobs))
  await Promise.all([fill('warm-heavy', warmUpJobs), fill('warm-light', warmUpJobs)])
  await run(2 * warmUpJobs, [{ stream: 'warm-heavy', weight: WEIGHT }, 'warm-light'])
  await Promise.all([fill('heavy', each), fill('light', each)])
  const two = await run(2 * each, [{ stream: 'heavy', weight: WEIGHT }, 'light'])
  await producer.close()
  return {
    jobsPerSecond: two.perSecond,
    ofOneStream: two.perSecond / one.perSecond,
    heavierShare: shareOf(two.starts, Math.floor(each * 0.75)) * 100,
  }
}

/** Of what was started until `count` jobs of the heavier stream were: how much it was. */
function shareOf(starts: readonly string[], count: number): number {
  let heavy = 0
  for (let at = 0; at < starts.length; at++) {
    if (starts[at] === 'heavy') heavy += 1
    if (heavy === count) return count / (at + 1)
  }
  return 1
}
