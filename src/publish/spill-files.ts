import { accessSync, closeSync, constants, openSync, readdirSync, readSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { messageOf, SpillError } from '../errors.ts'
import { HEADER_BYTES, headerOf, SPILL_MARK, type SpillHeader } from './spill-format.ts'

/** A spill file that waits to be published. */
export interface SpillFile {
  readonly file: string
  readonly header: SpillHeader
}

/**
 * The spill files at a path, oldest first. Synchronous: whoever makes a producer with a path that it must not use hears so at
 * once, and before anything is published. Files are only looked at.
 * @throws SpillError if one of them is not ours, or could not be written and removed.
 */
export function checkSpill(path: string): SpillFile[] {
  const found = namesIn(path).flatMap((name) => headed(join(dirname(path), name)) ?? [])
  const order = ({ header, file }: SpillFile) => `${header.at} ${file.length.toString().padStart(5, '0')} ${file}`
  return found.sort((one, other) => (order(one) < order(other) ? -1 : 1))
}

/** The path's own file, and those that were written beside it. A folder that cannot take one would lose jobs at a shutdown. */
function namesIn(path: string): string[] {
  const [folder, own] = [dirname(path), basename(path)]
  try {
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
    return readdirSync(folder).filter((name) => {
      return name === own || (name.startsWith(`${own}.`) && /^[1-9]\d{0,4}$/.test(name.slice(own.length + 1)))
    })
  } catch (error) {
    const advice = 'give a path in a folder that is there and can be written to'
    throw new SpillError(`cannot keep a spill file at ${path}: ${messageOf(error)}; ${advice}`, { cause: error })
  }
}

/** Undefined for one that says nothing yet: its writer was killed before the first line was whole, or is about to write it. */
function headed(file: string): SpillFile | undefined {
  const text = beginningOf(file)
  if (text === undefined || text === '') return undefined
  const end = text.indexOf('\n')
  const header = end === -1 ? undefined : headerOf(text.slice(0, end))
  if (header !== undefined && 'id' in header) return { file, header }
  if (header !== undefined) {
    const [theirs, advice] = [String(header.version), 'start the version that wrote it, or move it away']
    throw new SpillError(`cannot read the spill file ${file}: it is of version ${theirs}, not 1; ${advice}`)
  }
  const isCut = end === -1 && (text.startsWith(SPILL_MARK) || SPILL_MARK.startsWith(text))
  if (isCut) return undefined
  throw new SpillError(
    `${file} is not a spill file of millrace, and is left as it is: give a path that nothing else uses`,
  )
}

/** Undefined if it was removed meanwhile, by who has published it. */
function beginningOf(file: string): string | undefined {
  try {
    // Opening what is no file may wait for ever, as a pipe does.
    if (!statSync(file).isFile()) throw new Error('it is not a regular file')
    const fd = openSync(file, 'r+')
    try {
      const buffer = Buffer.alloc(HEADER_BYTES)
      return buffer.toString('utf8', 0, readSync(fd, buffer, 0, HEADER_BYTES, 0))
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new SpillError(`cannot use the spill file ${file}: ${messageOf(error)}`, { cause: error })
  }
}
