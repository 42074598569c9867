import type { Observed } from '../steps/task.ts'
import { type Group, JOBS_PER_SECOND, type Measure } from './measure.ts'
import { processBacklog } from './processing.ts'
import type { Scale } from './scale.ts'
import { scraping } from './scrape.ts'

/** What it costs to be looked at: `npm run bench -- --observed`. */
export function observedGroups(scale: Scale): Group[] {
  return [
    {
      name: 'observed',
      note:
        'async handlers that do nothing, 100 slots | without: no registry, no tracing | scraped: a registry, rendered every second | ' +
        'tracing: the option of millrace/otel given, and no SDK registered',
      rounds: scale.observedRounds,
      measures: [
        observed(scale, 'none', 'process, without metrics and tracing'),
        observed(scale, 'scraped', 'process, metrics scraped every second'),
        observed(scale, 'tracing', 'process, tracing present and unused'),
      ],
    },
    scraping(scale),
  ]
}

function observed({ fastJobs: jobs, warmUpShare }: Scale, how: Observed, title: string): Measure {
  return {
    name: `observed-${how}`,
    title,
    contenders: ['millrace'],
    rows: [{ ...JOBS_PER_SECOND, title }],
    measure: (bench) => processBacklog(bench, { jobs, warmUpJobs: Math.ceil(jobs * warmUpShare), observed: how }),
  }
}
