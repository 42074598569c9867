import { BaseSequencer, type TestSpecification } from 'vitest/node'

/**
 * The files whose tests wait longest, by their nature: for leases, for outages, for the commands of a guide. They begin first
 * and wait beside all the others; vitest alone would begin with the longest text, and wait for these at the end.
 */
const LONGEST = [
  'test/recovery-guide.test.ts',
  'test/guide.test.ts',
  'test/faults/health.test.ts',
  'test/tracing-guide.test.ts',
  'test/faults/redis-away.test.ts',
  'test/faults/replay.test.ts',
  'test/faults/operators.test.ts',
  'test/cli/worker.test.ts',
  'test/prometheus.test.ts',
  'test/faults/silence.test.ts',
  'test/faults/crash.test.ts',
  'test/cli/metrics.test.ts',
  'test/job-states.test.ts',
  'test/faults/audit.test.ts',
  'test/faults/promotion.test.ts',
  'test/faults/bulk.test.ts',
  'test/faults/stop.test.ts',
  'test/faults/waiting.test.ts',
  'test/cli/help.test.ts',
  'test/cli/demo.test.ts',
  'test/package.test.ts',
]

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files)
    const placeOf = ({ moduleId }: TestSpecification) => {
      const place = LONGEST.findIndex((name) => moduleId.endsWith(name))
      return place === -1 ? LONGEST.length : place
    }
    return sorted.toSorted((a, b) => placeOf(a) - placeOf(b))
  }
}
