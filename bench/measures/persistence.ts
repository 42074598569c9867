import { type Group, type Measure } from './measure.ts'
import type { Scale } from './scale.ts'

/** A rewrite of the file in the middle of a round would be in one contender's figure and not in the other's. */
const AOF = ['--appendonly', 'yes', '--auto-aof-rewrite-percentage', '0']

const MODES = [
  { name: 'off', title: 'nothing persisted', redisArgs: [] },
  { name: 'everysec', title: 'AOF everysec', redisArgs: [...AOF, '--appendfsync', 'everysec'] },
  { name: 'always', title: 'AOF always', redisArgs: [...AOF, '--appendfsync', 'always'] },
] as const

export function persistence(scale: Scale): Group {
  const jobs = scale.persistedJobs
  const warmUpJobs = Math.ceil(jobs * scale.warmUpShare)
  const modes = MODES.filter(({ name }) => scale.persistenceModes.includes(name))
  const measures = modes.map(({ name, title, redisArgs }): Measure => {
    return {
      name: `persistence-${name}`,
      title,
      redisArgs,
      contenders: ['millrace', 'raw'],
      rows: [
        { figure: 'publishedPerSecond', title: `publish in bulk, ${title}`, unit: 'jobs/s', digits: 0 },
        { figure: 'processedPerSecond', title: `process, 100 slots, ${title}`, unit: 'jobs/s', digits: 0 },
      ],
      measure: async ({ run }) => {
        const published = await run({ step: 'publish', how: 'many', jobs, warmUpJobs })
        const waitingJobs = jobs + warmUpJobs
        const processed = await run({ step: 'process', waitingJobs, warmUpJobs, jobs, concurrency: 100 })
        return {
          publishedPerSecond: published['jobsPerSecond'] ?? Number.NaN,
          processedPerSecond: processed['jobsPerSecond'] ?? Number.NaN,
        }
      },
    }
  })
  return {
    name: 'persistence',
    note: 'with AOF always a reply waits for the disk: the figure is the disk of the temporary folder',
    rounds: scale.fewRounds,
    measures,
  }
}
