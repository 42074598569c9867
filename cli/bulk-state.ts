import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { copyFile, link, open, readFile, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { When } from './bulk-line.ts'
import { EXIT, CliError, usageError } from './exit.ts'

/**
 * What is known on disk of a file that is being published, beside the file: by which feed, and how. How far it is Redis knows.
 * It is written, and on the disk, before the first job is sent, and removed after the last one was confirmed: while it is
 * there, the file has been begun and not finished, whatever ended the process.
 */
export interface BulkState {
  /** The id of the feed. */
  readonly feed: string
  readonly stream: string
  /** The name of the file: `--state` can name the state of another one. */
  readonly file: string
  /** When jobs are due whose lines do not say. */
  readonly when: When
  /** When it was begun, for people. */
  readonly begunAt: string
}

/** Hidden, and named after the file. */
export function statePathOf(path: string): string {
  return join(dirname(path), `.${basename(path)}.millrace-publish`)
}

/** Undefined where there is none. @throws CliError for what is none of ours. */
export async function readState(path: string): Promise<BulkState | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw usageError(`cannot read the state file ${path}: ${(error as Error).message}`)
  }
  const state = parsed(text)
  if (state !== undefined) return state
  throw usageError(
    `expected ${path} to be a state file of \`millrace publish\`, got something else; it was left as it is`,
  )
}

/**
 * Writes it, unless there is one by now. It appears as a whole: a file that is linked to its name cannot be seen half written,
 * and a name that is taken is not taken over.
 */
export async function writeState(path: string, state: BulkState): Promise<void> {
  const draft = join(dirname(path), `.millrace-publish-${randomUUID()}`)
  try {
    const file = await open(draft, 'wx', 0o644)
    try {
      await file.writeFile(`${JSON.stringify({ millrace: 'publish', version: 1, ...state })}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await link(draft, path).catch((error: unknown) => copied(draft, path, error))
    await syncFolder(dirname(path))
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EEXIST')
      throw new CliError(`${path} is there since a moment ago: is the file published by another process?`, EXIT.failed)
    throw new CliError(
      `cannot write the state file ${path}, without which an interrupted file cannot be resumed: ${message}; ` +
        'nothing was published; give it another place with --state',
      EXIT.failed,
    )
  } finally {
    await unlink(draft).catch(() => {})
  }
}

/** Removes it if it is still this feed's: another process may have finished the file, and somebody begun it again. */
export async function removeState(path: string, { feed }: BulkState): Promise<void> {
  const found = await readState(path).catch(() => undefined)
  if (found?.feed !== feed) return
  try {
    await unlink(path)
    await syncFolder(dirname(path))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw new CliError(
      `everything was published, but the state file ${path} cannot be removed: ${(error as Error).message}; remove it`,
      EXIT.failed,
    )
  }
}

/** Some file systems have no links. */
async function copied(draft: string, path: string, error: unknown): Promise<void> {
  if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes((error as NodeJS.ErrnoException).code ?? ''))
    throw error
  await copyFile(draft, path, constants.COPYFILE_EXCL)
  const file = await open(path, 'r+')
  await file.sync().finally(() => file.close())
}

/** So that the name is on the disk too. Some systems cannot do that with a folder, and need not. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path === '' ? '.' : path)
  try {
    await folder.sync()
  } catch (error) {
    if (!['EINVAL', 'EPERM', 'EISDIR', 'ENOTSUP'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  } finally {
    await folder.close()
  }
}

function parsed(text: string): BulkState | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  const { millrace, version, when, ...rest } = (value ?? {}) as Partial<Record<string, unknown>>
  const isOurs = millrace === 'publish' && version === 1 && typeof when === 'object' && when !== null
  const [feed, stream, file, begunAt] = [rest['feed'], rest['stream'], rest['file'], rest['begunAt']]
  if (!isOurs || typeof feed !== 'string' || typeof stream !== 'string') return undefined
  return typeof file === 'string' && typeof begunAt === 'string' ? { feed, stream, file, when, begunAt } : undefined
}
