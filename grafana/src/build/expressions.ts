/**
 * How an expression chooses its series. There are two planes, and what is right for one is wrong for the other:
 *
 * - The process plane is what workers and producers count, each for itself: chosen by `job` and `instance`, then summed.
 * - The stream plane is what Redis says, told by every exporter alike: never chosen by job or instance, for another exporter
 *   tells the same, and a worker that somebody picks must not empty it; and always `max by`, so that two do not count double.
 */

const PROCESS = 'job=~"$job", instance=~"$instance"'
const STREAM = 'stream=~"$stream"'
const GROUP = `${STREAM}, group=~"$group"`

/** A metric of workers. */
export function worker(name: string, matchers = ''): string {
  return `${name}{${joined(PROCESS, GROUP, matchers)}}`
}

/** A metric of producers, which know no groups. */
export function producer(name: string, matchers = ''): string {
  return `${name}{${joined(PROCESS, STREAM, matchers)}}`
}

/** A metric of a process as a whole. */
export function process(name: string, matchers = ''): string {
  return `${name}{${joined(PROCESS, matchers)}}`
}

/** A metric that Redis has told of groups. */
export function ofGroups(name: string): string {
  return `max by (stream, group) (${name}{${GROUP}})`
}

/** A metric that Redis has told of streams. */
export function ofStreams(name: string): string {
  return `max by (stream) (${name}{${STREAM}})`
}

/** A recorded series of groups. */
export function recorded(name: string): string {
  return `${name}{${GROUP}}`
}

/** Of consumers, by name; only where the exporter was asked for them. */
export function ofConsumers(name: string): string {
  return `max by (stream, group, consumer) (${name}{${GROUP}})`
}

export function rate(series: string): string {
  return `rate(${series}[$__rate_interval])`
}

export function increase(series: string): string {
  return `increase(${series}[$__rate_interval])`
}

/** The usual three lines of a histogram of the process plane. */
export function quantiles(name: string, select: (name: string) => string, by = ''): { expr: string; legend: string }[] {
  const labels = by === '' ? 'le' : `le, ${by}`
  const prefix = by === '' ? '' : `{{${by}}} `
  return ([0.5, 0.95, 0.99] as const).map((quantile) => ({
    expr: `histogram_quantile(${quantile}, sum by (${labels}) (${rate(select(`${name}_bucket`))}))`,
    legend: `${prefix}p${quantile * 100}`,
  }))
}

function joined(...parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join(', ')
}
