import { fileURLToPath } from 'node:url'
import { inject } from 'vitest'

/** The built command line. */
export const CLI_MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

/** Commands that start processes of their own, or load what a user has written. */
const AS_BUILT = /^(?:worker|demo)$/

/** What to run for a command: its bundle, where there is one (bundles.ts). */
export function cliMain(args: readonly string[]): string {
  return args.some((arg) => AS_BUILT.test(arg)) ? CLI_MAIN : (inject('cliBundle') ?? CLI_MAIN)
}
