import type { ContenderName } from '../contenders/contender.ts'
import type { ChainTask } from '../steps/task.ts'
import { type Group, JOBS_PER_SECOND, type Measure } from './measure.ts'
import type { Scale } from './scale.ts'

const CONCURRENCY = 100

/** Jobs whose handlers publish the next one, on two streams in one process. */
export function chainGroup({ control, warmUpShare, rounds }: Scale): Group {
  const measure = (name: string, how: ChainTask['how'], title: string, contenders: ContenderName[]): Measure => ({
    name,
    title,
    contenders,
    rows: [{ ...JOBS_PER_SECOND, title }],
    measure: ({ contender, run }) => {
      const jobs = contender === 'millrace' ? control.streams / 4 : control.unique.slow
      return run({ step: 'chain', how, jobs, warmUpJobs: Math.ceil(jobs * warmUpShare), concurrency: CONCURRENCY })
    },
  })
  return {
    name: 'chain',
    note: 'a handler publishes the next job, whose handler does nothing; 100 slots each. Jobs that went both ways | job.publish | queue.add',
    rounds,
    measures: [
      measure('chain', 'near', 'job to job, in one step with the ack', ['millrace', 'bullmq']),
      measure('chain-far', 'far', 'job to job, under a token', ['millrace']),
      measure('chain-producer', 'producer', 'job to job, by a producer', ['millrace']),
    ],
  }
}
