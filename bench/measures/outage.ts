import { type Group, JOBS_PER_SECOND } from './measure.ts'
import type { Scale } from './scale.ts'

/** What a Redis that goes away costs who publishes: `npm run bench -- --outage`. */
export function outageGroups({ outage: { buffered, many }, fewRounds }: Scale): Group[] {
  return [
    {
      name: 'outage',
      note:
        `durability: 'buffered', ${buffered} jobs a turn, three turns connected and away: how fast publish takes them, and how fast ` +
        `Redis has them when it is back | publishMany of ${many} jobs while Redis (append-only file, fsync always) is killed and ` +
        'started again three times: every job is there once, in its order, or the measure fails',
      rounds: fewRounds,
      measures: [
        {
          name: 'outage-buffered',
          title: 'publish while Redis is away',
          contenders: ['millrace'],
          rows: [
            { ...JOBS_PER_SECOND, figure: 'connectedPerSecond', title: 'publish, buffered, connected' },
            { ...JOBS_PER_SECOND, figure: 'awayPerSecond', title: 'publish, buffered, Redis away' },
            { figure: 'awayRatio', title: '… to connected', unit: '×', digits: 2 },
            { ...JOBS_PER_SECOND, figure: 'flushPerSecond', title: '… into Redis when it is back' },
          ],
          measure: ({ run }) => run({ step: 'outage', what: 'away', jobs: buffered }),
        },
        {
          name: 'outage-restarts',
          title: 'publish in bulk through three restarts',
          contenders: ['millrace'],
          rows: [
            { ...JOBS_PER_SECOND, title: 'publish in bulk through three restarts' },
            { figure: 'maxRssMib', title: '… memory of the process, most', unit: 'MiB', digits: 0 },
            { figure: 'awayMs', title: '… Redis was away for', unit: 'ms', digits: 0 },
          ],
          measure: ({ run }) => run({ step: 'outage', what: 'restarts', jobs: many }),
        },
      ],
    },
  ]
}
