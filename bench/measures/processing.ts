import { CONTENDERS } from '../contenders/contender.ts'
import type { Figures, ProcessTask } from '../steps/task.ts'
import { type Bench, type Group, JOBS_PER_SECOND, type Measure } from './measure.ts'
import { jobsFor, type Scale } from './scale.ts'

const CONCURRENCY = 100

interface Backlog extends Pick<ProcessTask, 'jobs' | 'warmUpJobs' | 'observed'> {
  readonly concurrency?: number
}

/** Publishes in one process what another one then works off. */
export async function processBacklog(
  { run }: Pick<Bench, 'run'>,
  { concurrency = CONCURRENCY, ...task }: Backlog,
  waitingJobs = task.jobs + task.warmUpJobs,
): Promise<Figures> {
  await run({ step: 'publish', how: 'many', jobs: waitingJobs, warmUpJobs: 0 })
  return run({ step: 'process', waitingJobs, concurrency, ...task })
}

export function processing(scale: Scale): Group {
  const measure: Measure = {
    name: 'process',
    title: 'process, 100 slots',
    contenders: CONTENDERS,
    rows: [
      { ...JOBS_PER_SECOND, title: 'process, 100 slots' },
      { figure: 'maxRssMib', title: '… memory of the worker process, most', unit: 'MiB', digits: 0 },
    ],
    measure: (bench) => {
      const jobs = jobsFor(bench.contender, scale)
      return processBacklog(bench, { jobs, warmUpJobs: Math.ceil(jobs * scale.warmUpShare) })
    },
  }
  return {
    name: 'process',
    note:
      'async handlers that do nothing, from the first timed handler call to the last confirmed ack | raw: reads of 500, the ' +
      'next one sent ahead, JSON.parse and a synchronous call an entry, one XACK a read',
    rounds: scale.rounds,
    measures: [measure],
  }
}

/** millrace alone, by slots. */
export function slots(scale: Scale): Group {
  return {
    name: 'slots',
    note: 'one worker of millrace, async handlers that do nothing',
    rounds: scale.fewRounds,
    measures: ([1, 10, 100] as const).flatMap((concurrency): Measure[] => {
      const title = concurrency === 1 ? '1 slot' : `${concurrency} slots`
      const jobs = scale.slotJobs[concurrency]
      if (jobs === undefined) return []
      const warmUpJobs = Math.ceil(jobs * scale.warmUpShare)
      return [
        {
          name: `slots-${concurrency}`,
          title: `process, ${title}`,
          contenders: ['millrace'],
          rows: [{ ...JOBS_PER_SECOND, title: `process, ${title}` }],
          measure: (bench) => processBacklog(bench, { jobs, warmUpJobs, concurrency }),
        },
      ]
    }),
  }
}

/** millrace alone, by how much waits. */
export function backlog(scale: Scale): Group {
  const { backlogJobs, backlogTimedJobs: jobs, cycles } = scale
  const warmUpJobs = Math.ceil(jobs * scale.warmUpShare)
  const measureOf = (name: string, title: string, measure: Measure['measure']): Measure => {
    return { name, title, contenders: ['millrace'], rows: [{ ...JOBS_PER_SECOND, title }], measure }
  }
  return {
    name: 'backlog',
    note:
      `10^3: in cycles, ${cycles} times a thousand put into Redis at one instant and worked off, with the worker's way up to ` +
      `speed in each | drained: ${jobs} jobs wait, and none at the end | 10^6: ${backlogJobs} jobs wait, the first ${jobs} after ` +
      'the warm-up are timed',
    rounds: scale.fewRounds,
    measures: [
      measureOf('backlog-cycles', 'process, at most 10^3 waiting', ({ run }) =>
        run({
          step: 'cycles',
          cycles,
          warmUpCycles: Math.ceil(cycles * scale.warmUpShare),
          jobsPerCycle: 1000,
          concurrency: CONCURRENCY,
        }),
      ),
      measureOf('backlog-drained', 'process, drained to 0 waiting', (bench) =>
        processBacklog(bench, { jobs, warmUpJobs }),
      ),
      measureOf('backlog-million', 'process, 10^6 waiting', (bench) =>
        processBacklog(bench, { jobs, warmUpJobs }, backlogJobs),
      ),
    ],
  }
}
