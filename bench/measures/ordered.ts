import { type Group, JOBS_PER_SECOND, type Measure } from './measure.ts'
import type { Scale } from './scale.ts'

const CONCURRENCY = 100

/** Jobs in order by key, and the same without. */
export function ordered({ time, warmUpShare, rounds }: Scale): Group {
  const { jobs, keys } = time.ordered
  const measure = (name: string, title: string, inOrder: boolean): Measure => ({
    name,
    title,
    contenders: ['millrace'],
    rows: [{ ...JOBS_PER_SECOND, title }],
    measure: ({ run }) => {
      const warmUpJobs = Math.ceil(jobs * warmUpShare)
      return run({ step: 'ordered', jobs, warmUpJobs, keys, concurrency: CONCURRENCY, inOrder })
    },
  })
  return {
    name: 'ordered',
    note: `one worker, ${CONCURRENCY} slots, ${keys} keys in turn; BullMQ has order by key in its paid edition alone: what it does without is under "process"`,
    rounds,
    measures: [
      measure('ordered', `in order by ${keys} keys`, true),
      measure('ordered-plain', 'the same jobs without keys', false),
    ],
  }
}
