import type { FigureName } from './results.ts'

/** What must hold in every full run on any machine: ratios within one run, so that the machine is no part of them. */
export interface Floor {
  readonly title: string
  readonly of: FigureName
  /** What it is divided by, the largest of these; without any, the figure itself is judged. */
  readonly over: readonly FigureName[]
  readonly bound: 'at least' | 'at most'
  readonly limit: number
}

const PER_SECOND = 'jobsPerSecond'
const process = { measure: 'process', figure: PER_SECOND }
const many = { measure: 'publish-many', figure: PER_SECOND }
const inFlight = { measure: 'publish-in-flight', figure: PER_SECOND }
const awaited = { measure: 'publish-awaited', figure: PER_SECOND }
const p50 = { measure: 'latency', figure: 'p50Ms' }
const bytes = { measure: 'memory', figure: 'bytesPerJob' }

export const FLOORS: readonly Floor[] = [
  floor('process, 100 slots, to raw Streams', process, 'raw', 0.8),
  floor('process, 100 slots, to BullMQ', process, 'bullmq', 8),
  floor('process, 100 slots, to Bee-Queue', process, 'bee-queue', 4),
  floor('publishMany to pipelined XADD', many, 'raw', 1.3),
  floor('publishMany to addBulk of BullMQ', many, 'bullmq', 6),
  floor('publish, 500 in flight, to auto-pipelined XADD', inFlight, 'raw', 1.2),
  floor('publish, 500 in flight, to add of BullMQ', inFlight, 'bullmq', 4),
  floor('publish, awaited, to awaited XADD', awaited, 'raw', 0.55),
  ceiling('publish to start, p50, to raw Streams', p50, 'raw', 1.5),
  ceiling('memory in Redis per waiting job to raw XADD', bytes, 'raw', 1.15),
  {
    title: 'process, 10^6 waiting, to 10^3 or fewer at the end',
    of: millrace('backlog-million', PER_SECOND),
    over: [millrace('backlog-cycles', PER_SECOND), millrace('backlog-drained', PER_SECOND)],
    bound: 'at least',
    limit: 0.9,
  },
  {
    title: 'idle worker, commands/s',
    of: millrace('idle', 'commandsPerSecond'),
    over: [],
    bound: 'at most',
    limit: 2,
  },
  floor('fail, retry, succeed, to BullMQ', perSecondOf('fail-retry-succeed'), 'bullmq', 1),
  floor('publish for later, in bulk, to addBulk of BullMQ', perSecondOf('scheduled-publish'), 'bullmq', 1),
  floor('promote due jobs and run them, to BullMQ', perSecondOf('promotion'), 'bullmq', 1),
  floor('die at the first failure, to BullMQ', { measure: 'dead-redrive', figure: 'deadPerSecond' }, 'bullmq', 1),
  floor('redrive all, to BullMQ', { measure: 'dead-redrive', figure: 'redrivenPerSecond' }, 'bullmq', 1),
  own('dry run of a replay, entries/s', 'dryRunPerSecond', 'at least', 100_000),
  own('dry run of a replay filtered by payload, entries/s', 'wherePerSecond', 'at least', 100_000),
  own('entries a call of a dry run', 'entriesPerCall', 'at most', 500),
  own('replay into a group, jobs/s', 'replayPerSecond', 'at least', 30_000),
  own('replay at a given rate, off by %', 'paceError', 'at most', 5),
  own('stats, 2 million entries to 2 thousand', 'statsRatio', 'at most', 1.5),
  own('explain, 2 million entries to 2 thousand', 'explainRatio', 'at most', 1.5),
  own('top, 2 million entries to 2 thousand', 'topRatio', 'at most', 1.5),
  own('commands of explain', 'explainCommands', 'at most', 20),
  own('dearest command on average, µs', 'worstCommandUs', 'at most', 5000),
  beside('metrics scraped every second, to none', 'observed-scraped'),
  beside('tracing present and unused, to none', 'observed-tracing'),
  alone(
    "publish while Redis is away, to connected, durability 'buffered'",
    millrace('outage-buffered', 'awayRatio'),
    'at least',
    0.8,
  ),
  floor('publish with a unique key, to BullMQ', perSecondOf('unique-publish'), 'bullmq', 1),
  alone('two weighted streams, to one', millrace('streams', 'ofOneStream'), 'at least', 0.8),
  alone('share of the stream of weight 3 of 4, %', millrace('streams', 'heavierShare'), 'at least', 73),
  alone('a rate limit held by 4 workers, off by %', millrace('limited', 'offBy'), 'at most', 2),
  ceiling('busiest second under a limit, to BullMQ', { measure: 'limited', figure: 'busiestSecond' }, 'bullmq', 1),
  alone('scrape of 200 streams of 3 groups, ms in Redis', millrace('scrape', 'redisMs'), 'at most', 50),
  alone('page of 5 000 series, ms without a turn of the loop', millrace('scrape', 'blockedMs'), 'at most', 50),
]

/** Being looked at costs less than 5 % of the throughput. */
function beside(title: string, measure: string): Floor {
  const over = [millrace('observed-none', PER_SECOND)]
  return { title, of: millrace(measure, PER_SECOND), over, bound: 'at least', limit: 0.95 }
}

/** A figure of recovery that is judged by itself. */
function own(title: string, figure: string, bound: Floor['bound'], limit: number): Floor {
  return alone(title, millrace('recovery', figure), bound, limit)
}

function alone(title: string, of: FigureName, bound: Floor['bound'], limit: number): Floor {
  return { title, of, over: [], bound, limit }
}

type Figure = Omit<FigureName, 'contender'>

function perSecondOf(measure: string): Figure {
  return { measure, figure: PER_SECOND }
}

function millrace(measure: string, figure: string): FigureName {
  return { measure, figure, contender: 'millrace' }
}

function floor(title: string, figure: Figure, other: FigureName['contender'], limit: number): Floor {
  return {
    title,
    of: { ...figure, contender: 'millrace' },
    over: [{ ...figure, contender: other }],
    bound: 'at least',
    limit,
  }
}

function ceiling(title: string, figure: Figure, other: FigureName['contender'], limit: number): Floor {
  return { ...floor(title, figure, other, limit), bound: 'at most' }
}
