import type { ContenderName } from '../contenders/contender.ts'
import type { LifecycleTask } from '../steps/task.ts'
import { type Group, JOBS_PER_SECOND, type Row } from './measure.ts'
import type { LifecycleScale, Scale } from './scale.ts'

const CONCURRENCY = 100

const MEASURES: readonly {
  readonly name: string
  readonly what: LifecycleTask['what']
  readonly title: string
  readonly rows: readonly Row[]
  readonly jobs: keyof LifecycleScale
  readonly note: string
}[] = [
  {
    name: 'fail-retry-succeed',
    what: 'retry',
    title: 'fail, retry, succeed',
    rows: [{ ...JOBS_PER_SECOND, title: 'fail, retry 1 ms later, succeed' }],
    jobs: 'retried',
    note: 'every job fails its first run and succeeds in its second, 100 slots, a fixed back-off of 1 ms',
  },
  {
    name: 'scheduled-publish',
    what: 'schedule',
    title: 'publish for later',
    rows: [{ ...JOBS_PER_SECOND, title: 'publish for later, in bulk' }],
    jobs: 'scheduled',
    note: 'due in a day | publishMany with delayMs | addBulk of 500 with delay',
  },
  {
    name: 'promotion',
    what: 'promote',
    title: 'due jobs',
    rows: [{ ...JOBS_PER_SECOND, title: 'promote due jobs and run them' }],
    jobs: 'promoted',
    note: 'scheduled jobs that are all due when the worker is started, from its start until all have run, 100 slots',
  },
  {
    name: 'dead-redrive',
    what: 'redrive',
    title: 'dead letters',
    rows: [
      { figure: 'deadPerSecond', title: 'die at the first failure', unit: 'jobs/s', digits: 0 },
      { figure: 'redrivenPerSecond', title: 'redrive all, and run them', unit: 'jobs/s', digits: 0 },
    ],
    jobs: 'dead',
    note: 'jobs of one attempt that fail, 100 slots; then all again | dead.redrive | retryJobs of the failed ones',
  },
]

/** What happens to jobs that fail or wait, beside the peer that has the same: `npm run bench -- --lifecycle`. */
export function lifecycleGroups(scale: Scale): Group[] {
  return MEASURES.map(({ name, what, title, rows, jobs: size, note }) => ({
    name,
    note,
    rounds: scale.rounds,
    measures: [
      {
        name,
        title,
        contenders: ['millrace', 'bullmq'] satisfies ContenderName[],
        rows,
        measure: ({ contender, run }) => {
          const { fast, slow } = scale.lifecycle[size]
          const jobs = contender === 'millrace' ? fast : slow
          const warmUpJobs = Math.ceil(jobs * scale.warmUpShare)
          return run({ step: 'lifecycle', what, jobs, warmUpJobs, concurrency: CONCURRENCY })
        },
      },
    ],
  }))
}
