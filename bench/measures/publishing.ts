import { CONTENDERS } from '../contenders/contender.ts'
import type { PublishHow } from '../steps/task.ts'
import { type Group, JOBS_PER_SECOND } from './measure.ts'
import { jobsFor, type Scale } from './scale.ts'

const WAYS: readonly {
  readonly how: PublishHow
  readonly name: string
  readonly title: string
  readonly note: string
}[] = [
  {
    how: 'many',
    name: 'publish-many',
    title: 'publish in bulk',
    note: 'publishMany | pipelines of 500 XADD, one after the other | addBulk of 500 | saveAll of 500',
  },
  {
    how: 'in-flight',
    name: 'publish-in-flight',
    title: 'publish, 500 in flight',
    note: 'publish | XADD with auto-pipelining | add | save; 500 unanswered at any time',
  },
  {
    how: 'awaited',
    name: 'publish-awaited',
    title: 'publish, awaited one by one',
    note: 'publish | XADD | add | save; the next one after the answer to the last',
  },
]

export function publishing(scale: Scale): Group[] {
  return WAYS.map(({ how, name, title, note }) => ({
    name,
    note,
    rounds: scale.rounds,
    measures: [
      {
        name,
        title,
        contenders: CONTENDERS,
        rows: [{ ...JOBS_PER_SECOND, title }],
        measure: ({ contender, run }) => {
          const jobs = how === 'awaited' ? scale.awaitedJobs : jobsFor(contender, scale)
          return run({ step: 'publish', how, jobs, warmUpJobs: Math.ceil(jobs * scale.warmUpShare) })
        },
      },
    ],
  }))
}
