import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { inject } from 'vitest'

/** The built command line. */
export const CLI_MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

/** Of the demo, and of handlers that import what is in dist/: the bundle would be a second copy of it. Those in TypeScript get ours. */
function isAsBuilt(args: readonly string[]): boolean {
  return args.some((arg) => arg === 'demo' || importsOurs(arg))
}

function importsOurs(path: string): boolean {
  return /\.[cm]?js$/.test(path) && existsSync(path) && readFileSync(path, 'utf8').includes("from 'millrace")
}

/** What to run for a command: its bundle, where there is one (bundles.ts). */
export function cliMain(args: readonly string[]): string {
  return isAsBuilt(args) ? CLI_MAIN : (inject('cliBundle') ?? CLI_MAIN)
}
