import { defineConfig, mergeConfig } from 'vitest/config'
import local from './vitest.config.ts'

/** The same tests, each file against a Redis in a container of its own. MILLRACE_TEST_IMAGE names another image. */
export default mergeConfig(
  local,
  defineConfig({
    test: {
      globalSetup: ['test/helpers/containers.ts'],
      // A file's hooks also start its container.
      hookTimeout: 180_000,
    },
  }),
)
