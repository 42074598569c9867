import { defineConfig } from 'vitest/config'
import { LongestFirst } from './test/helpers/longest-first.ts'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/helpers/cli-bundle.ts', 'test/helpers/thread-bundle.js'],
    sequence: { sequencer: LongestFirst },
    // Processes, not threads: tests start threads of their own, send signals and look at process-wide state. The option
    // lets those threads run our TypeScript; they inherit it.
    pool: 'forks',
    execArgv: ['--import', new URL('test/helpers/typescript.js', import.meta.url).href],
    // Each file may run a Redis, workers and child processes, and most of its time it waits for them: five keep two cores busy.
    maxWorkers: 5,
    // Longer than what a test waits for (test/helpers/eventually.ts), which says what it was.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})
