import { CONTENDERS } from '../contenders/contender.ts'
import type { Group } from './measure.ts'
import type { Scale } from './scale.ts'

const EVERY_MS = 2

export function latencies(scale: Scale): Group {
  const samples = scale.latencySamples
  return {
    name: 'latency',
    note: `one job every ${EVERY_MS} ms or so on an idle system, ${samples} a round; publisher and worker share a process`,
    rounds: scale.rounds,
    measures: [
      {
        name: 'latency',
        title: 'publish to start',
        contenders: CONTENDERS,
        rows: [
          { figure: 'p50Ms', title: 'publish to start, p50', unit: 'ms', digits: 2 },
          { figure: 'p99Ms', title: 'publish to start, p99', unit: 'ms', digits: 2 },
        ],
        measure: ({ run }) =>
          run({
            step: 'latency',
            samples,
            warmUpSamples: Math.ceil(samples * scale.warmUpShare),
            everyMs: EVERY_MS,
          }),
      },
    ],
  }
}
