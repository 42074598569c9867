import { once } from 'node:events'
import { messageOf } from '../src/errors.ts'
import { openContender, openControl, openLifecycle, openTimed } from './contenders/load.ts'
import type { Contender } from './contenders/contender.ts'
import { processBatches } from './steps/batches.ts'
import { measureChain } from './steps/chain.ts'
import { measureControl } from './steps/control.ts'
import { processInCycles } from './steps/cycles.ts'
import { measureLifecycle } from './steps/lifecycle.ts'
import { latency } from './steps/latency.ts'
import { processWaiting } from './steps/process.ts'
import { measureOrdered } from './steps/ordered.ts'
import { outage } from './steps/outage.ts'
import { publish } from './steps/publish.ts'
import { measureResults } from './steps/results.ts'
import { measureSchedules } from './steps/schedules.ts'
import type { Answer, ControlTask, Figures, LifecycleTask, Order, OutageTask, Task, TimeTask } from './steps/task.ts'

/**
 * The process that is measured. It does one task with one contender and ends, so that no heap and no compiled code of one
 * measurement is there in another.
 */

process.once('message', (order: Order) => void obey(order))
// The benchmark is gone: so are we.
process.once('disconnect', () => process.exit(1))

async function obey(order: Order): Promise<void> {
  let answer: Answer
  try {
    answer = { kind: 'figures', figures: await figuresOf(order) }
  } catch (error) {
    answer = { kind: 'failed', message: messageOf(error) }
  }
  process.send?.(answer, () => process.exit(0))
}

async function figuresOf({ contender: name, url, task }: Order): Promise<Figures> {
  if (task.step === 'lifecycle') {
    const system = await openLifecycle(name, url)
    const figures = await measureLifecycle(system, task)
    await system.close()
    return figures
  }
  if (task.step === 'control') {
    const system = await openControl(name, url)
    const figures = await measureControl(system, url, task)
    await system.close()
    return figures
  }
  if (task.step === 'schedules') {
    const system = await openTimed(name, url)
    const figures = await measureSchedules(system, task)
    await system.close()
    return figures
  }
  if (task.step === 'outage') return outage(task)
  if (task.step === 'chain') return measureChain(name, url, task)
  if (task.step === 'results') return measureResults(name, url, task)
  if (task.step === 'ordered') return measureOrdered(url, task)
  const contender = await openContender(name, url)
  const figures = await measure(contender, url, task)
  await contender.close()
  return figures
}

async function measure(
  contender: Contender,
  url: string,
  task: Exclude<Task, LifecycleTask | OutageTask | ControlTask | TimeTask>,
): Promise<Figures> {
  switch (task.step) {
    case 'publish':
      return publish(contender, task)
    case 'process':
      return processWaiting(contender, task)
    case 'latency':
      return latency(contender, task)
    case 'cycles':
      return processInCycles(contender, url, task)
    case 'batches':
      return processBatches(contender, url, task)
    case 'idle':
      return standIdle(contender)
  }
}

/** Its commands are counted from outside, see measures/idle.ts. */
async function standIdle(contender: Contender): Promise<Figures> {
  const worker = await contender.worker({ concurrency: 100, onJob: () => {} })
  const stop = once(process, 'message')
  process.send?.({ kind: 'ready' } satisfies Answer)
  await stop
  await worker.stop()
  return {}
}
