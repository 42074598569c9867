import { defineConfig } from 'vitest/config'
import { withPlaces } from './test/helpers/bundle.ts'
import { LongestFirst } from './test/helpers/longest-first.ts'

export default defineConfig({
  // The thread of a lease keeper is plain Node: its host starts it from a bundle, as the built package starts it from a file.
  plugins: [
    {
      name: 'keeper-thread',
      enforce: 'pre',
      transform: (code, id) => (id.endsWith('/src/lease/keeper-host.ts') ? withPlaces(code, id) : undefined),
    },
  ],
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/helpers/bundles.ts'],
    sequence: { sequencer: LongestFirst },
    // Processes, not threads: tests start threads of their own, send signals and look at process-wide state.
    pool: 'forks',
    // Each file may run a Redis, workers and child processes, and most of its time it waits for them: five keep two cores busy.
    maxWorkers: 5,
    // Longer than what a test waits for (test/helpers/eventually.ts), which says what it was.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})
