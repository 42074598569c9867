/**
 * The thread of the lease keeper in one file, so that its start costs a third: every worker that a test starts has one, and
 * loading the files of ioredis and our own one by one takes longer than all else that such a test does. Kept until one of the
 * files that are in it changes.
 */
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { fileURLToPath, URL } from 'node:url'

const cache = new URL('../../node_modules/.cache/millrace/threads/', import.meta.url)

/** The source of the file with all that it imports; undefined where it cannot be made: then the files are loaded one by one. */
export async function bundleOf(url) {
  const path = fileURLToPath(url)
  const kept = new URL(`${createHash('sha256').update(path).digest('hex')}.json`, cache)
  try {
    const { inputs, code } = JSON.parse(await readFile(kept, 'utf8'))
    if ((await stateOf(Object.keys(inputs))) === JSON.stringify(inputs)) return code
  } catch {
    // There is none yet, or a file of it is gone.
  }
  return bundle(path, kept)
}

async function bundle(path, kept) {
  // What vitest is built with.
  const { rolldown } = await import('rolldown').catch(() => ({}))
  if (rolldown === undefined) return undefined
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
  await rename(draft, kept)
  return code
}

/** When each of the files was written, and how long it is. */
async function stateOf(files) {
  const stats = await Promise.all(files.map((file) => stat(file)))
  return JSON.stringify(Object.fromEntries(files.map((file, at) => [file, `${stats[at].mtimeMs} ${stats[at].size}`])))
}
