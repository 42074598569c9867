import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'

/** What a file was when somebody looked: its hash, or why it could not be read. */
export type Look =
  | { readonly sha256: string; readonly stamp: string; readonly bytes: number }
  /** The system's word for it, as ENOENT. */
  | { readonly fault: string }

/** Files up to this size are read at once, larger ones in chunks. */
const WHOLE_BYTES = 1024 * 1024

/** Hashes a file. The stamp (size and times) is another one whenever the file was written between two looks. */
export async function look(path: string): Promise<Look> {
  try {
    const file = await open(path)
    try {
      const { size, mtimeMs, ctimeMs } = await file.stat()
      const hash = createHash('sha256')
      if (size <= WHOLE_BYTES) hash.update(await file.readFile())
      else for await (const chunk of file.createReadStream({ autoClose: false })) hash.update(chunk as Buffer)
      return { sha256: hash.digest('hex'), stamp: `${size} ${mtimeMs} ${ctimeMs}`, bytes: size }
    } finally {
      await file.close()
    }
  } catch (error) {
    return { fault: (error as NodeJS.ErrnoException).code ?? 'unknown' }
  }
}
