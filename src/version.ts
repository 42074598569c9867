import { createRequire } from 'node:module'

let version: string | undefined

/** The version of millrace, as its package says. */
export function versionOfPackage(): string {
  version ??= (createRequire(import.meta.url)('millrace/package.json') as { version: string }).version
  return version
}
