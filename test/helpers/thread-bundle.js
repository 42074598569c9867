/**
 * The thread of the lease keeper in one file, so that its start costs a third: every worker that a test starts has one, and
 * loading the files of ioredis and our own one by one takes longer than all else that such a test does. Made once, before a
 * test run; processes and threads of tests only read it, and load the files one by one where one of them has changed since.
 */
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { fileURLToPath, URL } from 'node:url'

const cache = new URL('../../node_modules/.cache/millrace/threads/', import.meta.url)
const KEEPER_THREAD = fileURLToPath(new URL('../../src/lease/keeper-thread.ts', import.meta.url))

/** Called by vitest before the first test. */
export async function setup() {
  if ((await bundleOf(KEEPER_THREAD)) === undefined) await bundle(KEEPER_THREAD)
}

/** The source of the file with all that it imports; undefined if there is none that is as new as its files. */
export async function bundleOf(path) {
  try {
    const { inputs, code } = JSON.parse(await readFile(placeOf(path), 'utf8'))
    return (await stateOf(Object.keys(inputs))) === JSON.stringify(inputs) ? code : undefined
  } catch {
    // There is none yet, or a file of it is gone.
    return undefined
  }
}

async function bundle(path) {
  // What vitest is built with.
  const { rolldown } = await import('rolldown')
  const bundler = await rolldown({ input: path, platform: 'node' })
  const { output } = await bundler.generate({ format: 'esm', codeSplitting: false })
  // Also those of which nothing was needed.
  const inputs = JSON.parse(await stateOf(await bundler.watchFiles))
  await bundler.close()
  const [{ code }] = output
  // Written aside and renamed: another thread must not read half of it.
  const draft = new URL(`${randomUUID()}.draft`, cache)
  await mkdir(cache, { recursive: true })
  await writeFile(draft, JSON.stringify({ inputs, code }))
  await rename(draft, placeOf(path))
}

function placeOf(path) {
  return new URL(`${createHash('sha256').update(path).digest('hex')}.json`, cache)
}

/** When each of the files was written, and how long it is. */
async function stateOf(files) {
  const stats = await Promise.all(files.map((file) => stat(file)))
  return JSON.stringify(Object.fromEntries(files.map((file, at) => [file, `${stats[at].mtimeMs} ${stats[at].size}`])))
}
