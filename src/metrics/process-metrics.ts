import type { ConnectionNumbers } from '../redis/connection-numbers.ts'
import { versionOfPackage } from '../version.ts'
import { attach, checkRegistry, type Metric, type MetricsRegistry } from './metric.ts'

/** The metrics of a process as a whole: its connections to Redis, by role, and what it runs. */
export const CONNECTION_METRICS: readonly Metric<ConnectionNumbers>[] = [
  {
    name: 'millrace_redis_up',
    type: 'gauge',
    help: 'Whether the connection is ready; of several of a role, whether all are. A producer without work needs none, and counts as up.',
    labels: ['role'],
    aggregator: 'min',
    *read({ role, open }) {
      if (open.size > 0) yield [{ role }, [...open].every(({ isReady }) => isReady) ? 1 : 0]
    },
  },
  {
    name: 'millrace_redis_reconnects_total',
    type: 'counter',
    help: 'Times that a connection became ready again after it had been.',
    labels: ['role'],
    aggregator: 'sum',
    *read({ role, reconnects }) {
      yield [{ role }, reconnects]
    },
  },
  {
    name: 'millrace_redis_errors_total',
    type: 'counter',
    help: "Errors of commands and connections, by the first word of Redis's answer; closed is a connection that was lost or never came about.",
    labels: ['role', 'code'],
    aggregator: 'sum',
    *read({ role, errors }) {
      for (const [code, count] of errors) yield [{ role, code }, count]
    },
  },
]

export const BUILD_METRICS: readonly Metric<null>[] = [
  {
    name: 'millrace_build_info',
    type: 'gauge',
    help: 'Always 1; its labels tell the version of millrace and of Node.js.',
    labels: ['version', 'node_version'],
    aggregator: 'first',
    *read() {
      yield [{ version: versionOfPackage(), node_version: process.version }, 1]
    },
  },
]

/** Who attaches it to a registry does not matter: it is the same for all. */
const BUILD = {}

/**
 * Puts `millrace_build_info` into a registry, as every worker and producer does; doing so again changes nothing.
 * @throws OptionError for what is no prom-client registry, and if it has another metric of that name.
 */
export function attachBuildInfo(registry: MetricsRegistry): void {
  const checked = checkRegistry(registry)
  if (checked !== undefined) attach(checked, BUILD, BUILD_METRICS, () => [null])
}
