/** Before and after a test run: what tests start as processes and threads, in few files. */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { removeBundles, writeBundle } from './bundle.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    /** The built command line. */
    cliBundle: string | undefined
    /** Of scripts, by their path: what to run in their place. */
    scriptBundles: Readonly<Record<string, string>>
  }
}

const ROOT = join(import.meta.dirname, '../..')
const CLI = join(ROOT, 'dist/cli/main.js')

/** What tests start with startChild(), apart from the examples. */
const SCRIPTS = [
  ...['cron-firer', 'idle-producer', 'order-worker', 'outbox-relay', 'pause-setter', 'private-redis', 'result-waiter'],
  ...['spill-recoverer', 'spill-writer', 'worker-process'],
].map((name) => `test/fixtures/${name}.ts`)

export async function setup(project: TestProject): Promise<void> {
  await bundleAll(project)
  project.onTestsRerun(() => bundleAll(project))
}

export async function teardown(): Promise<void> {
  await removeBundles()
}

async function bundleAll(project: TestProject): Promise<void> {
  const [scripts, cli] = await Promise.all([
    bundleScripts(),
    existsSync(CLI) ? writeBundle('cli', { main: CLI }) : undefined,
    // Who starts it knows where it is (bundle.ts).
    writeBundle('threads', { 'keeper-thread': join(ROOT, 'src/lease/keeper-thread.ts') }),
  ])
  project.provide('cliBundle', cli?.['main'])
  project.provide('scriptBundles', scripts)
}

async function bundleScripts(): Promise<Record<string, string>> {
  const examples = (await readdir(join(ROOT, 'examples'))).filter((name) => name.endsWith('.ts'))
  const scripts = [
    ...SCRIPTS,
    ...examples.map((name) => `examples/${name}`),
    'examples/outbox/main.ts',
    'scripts/soak-publish.ts',
  ]
  const input = Object.fromEntries(scripts.map((path) => [path.slice(0, -'.ts'.length), join(ROOT, path)]))
  const written = await writeBundle('scripts', input)
  return Object.fromEntries(Object.entries(input).map(([name, path]) => [path, written[name] ?? path]))
}
