import type { Group } from './measure.ts'
import type { Scale } from './scale.ts'

const CONCURRENCY = 100

/** Many schedules that are due at the same second. */
export function schedules({ time, fewRounds }: Scale): Group {
  return {
    name: 'schedules',
    note: `${time.schedules} schedules, 100 set at once, all due at the same second; one worker fires and runs them | cron | job schedulers`,
    rounds: fewRounds,
    measures: [
      {
        name: 'schedules',
        title: 'recurring schedules',
        contenders: ['millrace', 'bullmq'],
        rows: [
          { figure: 'setPerSecond', title: 'schedules set', unit: 'schedules/s', digits: 0 },
          { figure: 'ranPerSecond', title: '… fired and run, from when they were due', unit: 'jobs/s', digits: 0 },
        ],
        measure: ({ run }) => run({ step: 'schedules', jobs: time.schedules, concurrency: CONCURRENCY }),
      },
    ],
  }
}
