import type { Group } from './measure.ts'
import { JOBS_PER_SECOND } from './measure.ts'
import type { Scale } from './scale.ts'

const CALLERS = 1000
const CONCURRENCY = 100

/** Callers that wait for what their jobs give back. */
export function results({ time, warmUpShare, rounds }: Scale): Group {
  return {
    name: 'results',
    note: `${CALLERS} callers publish a job, await its result and publish the next; a worker of ${CONCURRENCY} slots in the same process | result: true | waitUntilFinished`,
    rounds,
    measures: [
      {
        name: 'results',
        title: 'results awaited',
        contenders: ['millrace', 'bullmq'],
        rows: [{ ...JOBS_PER_SECOND, title: `results awaited, ${CALLERS} in flight` }],
        measure: ({ contender, run }) => {
          const jobs = time.results[contender === 'millrace' ? 'fast' : 'slow']
          const warmUpJobs = Math.ceil(jobs * warmUpShare)
          return run({ step: 'results', jobs, warmUpJobs, callers: CALLERS, concurrency: CONCURRENCY })
        },
      },
    ],
  }
}
