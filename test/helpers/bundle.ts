/**
 * Programs in few files. A process or a thread spends more time on finding, translating and reading some hundred files, one by
 * one, than on what a test asks of it; from a bundle of the same files it does not.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'

const ROOT = new URL('../../', import.meta.url)
/** Of this run. Within the tree: what is not in a bundle is found from there. */
const FOLDER = new URL(`node_modules/.cache/millrace/bundles/${process.pid}/`, ROOT)

/** What else our files import finds its own files from where it is, or must be the same for the handlers of a user. */
const BUNDLED = /^(?:\.{0,2}\/|ioredis$|commander$|croner$|@marcbachmann\/|millrace$)/

/** Who starts a thread or a process from the file beside it starts it from its bundle. */
const STARTERS: readonly (readonly [RegExp, string])[] = [
  [/\/src\/lease\/keeper-host\.[jt]s$/, new URL('threads/keeper-host.js', FOLDER).href],
  [/\/dist\/cli\/pool-process\.js$/, new URL('cli/pool-process.js', FOLDER).href],
]

/** Writes programs, by their names; gives where they are. */
export async function writeBundle(
  folder: string,
  input: Readonly<Record<string, string>>,
): Promise<Record<string, string>> {
  // What vitest is built with.
  const { rolldown } = await import('rolldown')
  const dir = fileURLToPath(new URL(`${folder}/`, FOLDER))
  const bundler = await rolldown({
    input,
    platform: 'node',
    external: (id, importer) => importer !== undefined && isOurs(importer) && !BUNDLED.test(id),
    plugins: [{ name: 'places', transform: withPlaces }],
  })
  await mkdir(dir, { recursive: true })
  await writeFile(`${dir}package.json`, '{ "type": "module" }\n')
  const { output } = await bundler.write({
    dir,
    format: 'esm',
    entryFileNames: '[name].js',
    chunkFileNames: '[name]-[hash].js',
  })
  await bundler.close()
  return Object.fromEntries(
    output.flatMap((file) => (file.type === 'chunk' && file.isEntry ? [[file.name, `${dir}${file.fileName}`]] : [])),
  )
}

export async function removeBundles(): Promise<void> {
  await rm(FOLDER, { recursive: true, force: true })
}

/** Says in the code of one of our files where that was before. */
export function withPlaces(code: string, id: string): string | undefined {
  if (!isOurs(id)) return undefined
  const place = STARTERS.find(([starter]) => starter.test(id))?.[1] ?? pathToFileURL(id).href
  return code.replaceAll('import.meta.url', JSON.stringify(place))
}

function isOurs(path: string): boolean {
  return path.startsWith(fileURLToPath(ROOT)) && !path.includes('/node_modules/')
}
