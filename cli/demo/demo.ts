import { relative, resolve } from 'node:path'
import type { CliContext } from '../context.ts'
import { usageError } from '../exit.ts'
import { plural, printable } from '../output.ts'
import { Display } from './display.ts'
import { chooseFolder, listFiles, type Listing } from './files.ts'
import { openPlace, type Place } from './place.ts'
import type { Report } from './report.ts'
import { LEASE_MS, Run } from './run.ts'
import { verdictOf, type Fate } from './verdict.ts'
import { verify } from './verify.ts'

/** More files would make it longer and show nothing new. */
const MOST_FILES = 50_000

export interface DemoOptions {
  /** @default chosen */
  readonly folder: string | undefined
  /** The user's Redis. @default a private one */
  readonly redis: string | undefined
  readonly processes: number
}

/** From the folder to the verdict. Whatever comes between, nothing of it is left running or on disk. */
export async function runDemo(context: CliContext, options: DemoOptions, signal: AbortSignal): Promise<Report> {
  const folder = resolve(await chooseFolder(options.folder, process.cwd()))
  const display = new Display(context.stderr)
  let place: Place | undefined
  let run: Run | undefined
  const abandon = () => {
    display.end()
    run?.abandon()
    place?.abandon()
  }
  process.on('exit', abandon)
  try {
    place = await unlessAborted(
      openPlace(options.redis, (line) => context.say(line)),
      signal,
    )
    const listing = await listFiles(folder, { most: MOST_FILES, except: place.folders, signal })
    const { files } = listing
    const { processes } = options
    if (files.length === 0) throw usageError(`expected a folder with files in it, got ${folder}`)
    display.title('millrace demo', ...introduction(folder, listing, { processes, origin: place.origin }))
    run = new Run({ folder, files, processes }, place, display, signal)
    await run.run()
    const { runs } = run.results
    const fates = await compare(folder, { files, runs }, { display, signal })
    const { crash, dead } = run
    return {
      folder,
      files: files.length,
      processes,
      leaseMs: LEASE_MS,
      killedPid: crash?.pid ?? null,
      running: crash?.heldIds.length ?? 0,
      seconds: Math.round(display.seconds * 10) / 10,
      ...verdictOf({ files, runs, fates, crash, dead }),
    }
  } finally {
    display.end()
    await run?.close()
    await place?.close()
    process.off('exit', abandon)
  }
}

function introduction(
  folder: string,
  { files, more, unreadable }: Listing,
  { processes, origin }: { processes: number; origin: string },
): string[] {
  const first = more ? 'the first ' : ''
  const lines = [
    `  ${first}${plural(files.length, 'file')} below ${printable(shortened(folder))}, one job each: its SHA-256`,
    `  ${plural(processes, 'worker')} with a lease of ${LEASE_MS / 1000} s, one of them to be killed`,
    `  ${origin}`,
  ]
  if (unreadable > 0) lines.push(`  ${plural(unreadable, 'folder')} that cannot be read left out`)
  return lines
}

/** A folder within the current one by its short name. */
function shortened(folder: string): string {
  const within = relative(process.cwd(), folder)
  return within === '' ? '.' : within.startsWith('..') ? folder : within
}

/** Hashes all files again and compares with what the workers found. */
function compare(
  folder: string,
  { files, runs }: { files: readonly string[]; runs: Run['results']['runs'] },
  { display, signal }: { display: Display; signal: AbortSignal },
): Promise<Map<string, Fate>> {
  display.event(`all jobs are settled; hashing ${plural(files.length, 'file')} again to compare`)
  const told = (done: number) => {
    if (done % 100 !== 0 && done < files.length) return
    display.update({ doing: 'verified', done, files: files.length, lag: 0, pending: 0, recovered: 0 })
  }
  return verify(folder, files, runs, { signal, told })
}

/** What is opened although we were told to stop ends with the process. */
async function unlessAborted<Opened>(opening: Promise<Opened>, signal: AbortSignal): Promise<Opened> {
  signal.throwIfAborted()
  let abort = () => {}
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
  })
  try {
    return await Promise.race([opening, aborted])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
