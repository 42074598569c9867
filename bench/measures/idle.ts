import { setTimeout as sleep } from 'node:timers/promises'
import { CONTENDERS } from '../contenders/contender.ts'
import type { Group } from './measure.ts'
import { openMonitor } from './monitor.ts'
import type { Scale } from './scale.ts'

/**
 * What one worker without work sends. MONITOR shows it: Redis' own counters also count what a script calls, which costs
 * nobody a round trip.
 */
export function idle(scale: Scale): Group {
  return {
    name: 'idle',
    note: `commands that one worker without work sends to Redis, over ${scale.idleMs / 1000} s; what a script calls is not counted`,
    rounds: 1,
    measures: [
      {
        name: 'idle',
        title: 'idle worker',
        contenders: CONTENDERS,
        rows: [{ figure: 'commandsPerSecond', title: 'idle worker', unit: 'commands/s', digits: 1 }],
        measure: async ({ redis: { url }, signal, start }) => {
          const subject = start({ step: 'idle' })
          try {
            await subject.ready()
            await sleep(scale.idleSettleMs, undefined, { signal })
            const commands = await countCommands(url, scale.idleMs, signal)
            await subject.stop()
            return { commandsPerSecond: commands / (scale.idleMs / 1000) }
          } finally {
            await subject.kill()
          }
        },
      },
    ],
  }
}

async function countCommands(url: string, forMs: number, signal: AbortSignal): Promise<number> {
  let commands = 0
  const monitor = await openMonitor(url, ({ isOfScript }) => {
    if (!isOfScript) commands += 1
  })
  try {
    await sleep(forMs, undefined, { signal })
    return commands
  } finally {
    monitor.close()
  }
}
