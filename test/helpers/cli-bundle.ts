/**
 * Before and after a test run: the built command line in few files. Each of the thousand commands that the tests run spends
 * half of its time on finding and reading two hundred files, one by one; from a bundle of the same files it does not. What
 * starts processes of its own, the workers and the demo, runs as it was built, and so do the guides and the package.
 */
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { TestProject } from 'vitest/node'

declare module 'vitest' {
  export interface ProvidedContext {
    cliBundle: string | undefined
  }
}

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
/** Within the tree: what is not in the bundle is found from there. */
const FOLDER = fileURLToPath(new URL(`../../node_modules/.cache/millrace/cli/${randomUUID()}/`, import.meta.url))
/** The rest finds its own files from where it is, or must be the same for the handlers of a user. */
const BUNDLED = /^(?:\.{0,2}\/|ioredis$|@ioredis\/|commander$)/

export async function setup(project: TestProject): Promise<void> {
  if (!existsSync(MAIN)) return
  // What vitest is built with.
  const { rolldown } = await import('rolldown')
  const bundler = await rolldown({
    input: MAIN,
    platform: 'node',
    external: (id, importer) => !BUNDLED.test(id) && importer?.includes('/dist/') === true,
    plugins: [{ name: 'places', transform: (code, id) => code.replaceAll('import.meta.url', placeOf(id)) }],
  })
  await mkdir(FOLDER, { recursive: true })
  await bundler.write({ dir: FOLDER, format: 'esm', entryFileNames: 'main.mjs', chunkFileNames: '[name]-[hash].mjs' })
  await bundler.close()
  project.provide('cliBundle', `${FOLDER}main.mjs`)
}

export async function teardown(): Promise<void> {
  await rm(FOLDER, { recursive: true, force: true })
}

/** Where a file of the bundle was before. */
function placeOf(id: string): string {
  return JSON.stringify(pathToFileURL(id).href)
}
