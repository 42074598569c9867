import type { Figures } from '../steps/task.ts'
import { type Bench, type Group, JOBS_PER_SECOND } from './measure.ts'
import { jobsFor, type Scale } from './scale.ts'

const CONCURRENCY = 200
const SIZE = 100

/** A write per batch beside a write per job: `npm run bench -- --time`. */
export function batches(scale: Scale): Group {
  const measured = async ({ contender, run }: Bench, size: number): Promise<Figures> => {
    const jobs = jobsFor(contender, scale)
    const warmUpJobs = Math.ceil(jobs * scale.warmUpShare)
    const waitingJobs = jobs + warmUpJobs
    await run({ step: 'publish', how: 'many', jobs: waitingJobs, warmUpJobs: 0 })
    return run({ step: 'batches', waitingJobs, warmUpJobs, jobs, concurrency: CONCURRENCY, size })
  }
  return {
    name: 'batches',
    note:
      `${CONCURRENCY} slots, each job writes a row to a hash in the same Redis | a write per batch: handleBatch of ${SIZE}, one HSET for all its ` +
      'rows | a write per job: one HSET in each handler; BullMQ has batches in its paid edition alone, so this is what it does',
    rounds: scale.rounds,
    measures: [
      {
        name: 'batches',
        title: 'a write per batch',
        contenders: ['millrace'],
        rows: [
          { ...JOBS_PER_SECOND, title: 'a write per batch' },
          { figure: 'jobsPerWrite', title: '… jobs of a write', unit: 'jobs', digits: 0 },
        ],
        measure: (bench) => measured(bench, SIZE),
      },
      {
        name: 'batches-each',
        title: 'a write per job',
        contenders: ['millrace', 'bullmq'],
        rows: [{ ...JOBS_PER_SECOND, title: 'a write per job' }],
        measure: (bench) => measured(bench, 1),
      },
    ],
  }
}
