import type { ControlTask } from '../steps/task.ts'
import { type Group, JOBS_PER_SECOND, type Measure } from './measure.ts'
import type { Scale } from './scale.ts'

const CONCURRENCY = 100

/** What unique keys, several streams and limits cost: `npm run bench -- --control`. */
export function controlGroups(scale: Scale): Group[] {
  const { control, warmUpShare, rounds, fewRounds } = scale
  const { perSecond, seconds } = control
  const task = (what: ControlTask['what'], jobs: number): ControlTask => {
    const warmUpJobs = Math.ceil(jobs * warmUpShare)
    return { step: 'control', what, jobs, warmUpJobs, concurrency: CONCURRENCY, perSecond, seconds }
  }
  return [
    {
      name: 'unique-publish',
      note: 'every key published twice, 500 in flight: half of the answers are the job that was there | uniqueKey | deduplication',
      rounds,
      measures: [
        {
          name: 'unique-publish',
          title: 'publish with a unique key',
          contenders: ['millrace', 'bullmq'],
          rows: [{ ...JOBS_PER_SECOND, title: 'publish with a unique key' }],
          measure: ({ contender, run }) =>
            run(task('unique', control.unique[contender === 'millrace' ? 'fast' : 'slow'])),
        },
      ],
    },
    {
      name: 'streams',
      note: 'one worker, 100 slots, two streams of weights 3 and 1 that both have jobs, to one on a single stream in the same process',
      rounds,
      measures: [streams(task('streams', control.streams))],
    },
    {
      name: 'limited',
      note: `4 workers, ${perSecond} starts a second between them, more jobs than that, ${seconds} s | a limit | limiter`,
      rounds: fewRounds,
      measures: [
        {
          name: 'limited',
          title: 'a rate limit held by 4 workers',
          contenders: ['millrace', 'bullmq'],
          rows: [
            { ...JOBS_PER_SECOND, title: `starts, limit ${perSecond}/s` },
            { figure: 'offBy', title: '… off by', unit: '%', digits: 2 },
            { figure: 'busiestSecond', title: '… in the busiest second', unit: 'jobs', digits: 0 },
          ],
          measure: ({ run }) => run(task('limited', 0)),
        },
      ],
    },
  ]
}

function streams(task: ControlTask): Measure {
  return {
    name: 'streams',
    title: 'two weighted streams',
    contenders: ['millrace'],
    rows: [
      { ...JOBS_PER_SECOND, title: 'two weighted streams' },
      { figure: 'ofOneStream', title: '… to one stream', unit: '×', digits: 2 },
      { figure: 'heavierShare', title: '… share of the one of weight 3 of 4', unit: '%', digits: 1 },
    ],
    measure: ({ run }) => run(task),
  }
}
