import type { Dirent } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { usageError } from '../exit.ts'

/** The demo's input: the regular files below a folder. Symbolic links are not followed, so every file is met once. */
export interface Listing {
  /** Paths relative to the folder, sorted. */
  readonly files: readonly string[]
  /** Folders that could not be read. */
  readonly unreadable: number
  /** There were more files than `most`; the others are left out. */
  readonly more: boolean
}

/** Folders that are read at once: reading one is mostly waiting. */
const AT_ONCE = 32

export async function listFiles(
  folder: string,
  { most, except, signal }: { most: number; except: readonly string[]; signal: AbortSignal },
): Promise<Listing> {
  const files: string[] = []
  const folders = ['']
  let unreadable = 0
  while (folders.length > 0 && files.length <= most) {
    signal.throwIfAborted()
    const batch = folders.splice(0, AT_ONCE)
    const found = await Promise.all(batch.map((path) => readFolder(join(folder, path))))
    found.forEach((entries, at) => {
      if (entries === undefined) unreadable += 1
      for (const entry of entries ?? []) {
        const path = join(batch[at] ?? '', entry.name)
        if (entry.isFile()) files.push(path)
        else if (entry.isDirectory() && !except.includes(join(folder, path))) folders.push(path)
      }
    })
  }
  const more = files.length > most
  return { files: files.slice(0, most).sort(), unreadable, more }
}

/** Undefined if it cannot be read, or is gone by now. */
function readFolder(path: string): Promise<Dirent[] | undefined> {
  return readdir(path, { withFileTypes: true }).catch(() => undefined)
}

/** The folder that was asked for, else one with enough in it to be interesting: what is installed here, or we ourselves. */
export async function chooseFolder(given: string | undefined, here: string): Promise<string> {
  if (given !== undefined) {
    if (await isFolder(given)) return given
    throw usageError(`expected the folder ${given} to be a folder that exists`)
  }
  if (await isFolder(join(here, 'node_modules'))) return join(here, 'node_modules')
  const ours = dirname(createRequire(import.meta.url).resolve('millrace/package.json'))
  return basename(dirname(ours)) === 'node_modules' ? dirname(ours) : ours
}

async function isFolder(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  return found?.isDirectory() === true
}
