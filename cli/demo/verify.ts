import { join } from 'node:path'
import { look } from './hash.ts'
import type { Run } from './results.ts'
import { fateOf, type Fate } from './verdict.ts'

/** Files that are hashed at once. */
const AT_ONCE = 16

/** Hashes every file again, here, and compares. `told` hears how many are done. */
export async function verify(
  folder: string,
  files: readonly string[],
  runs: ReadonlyMap<string, readonly Run[]>,
  { signal, told }: { signal: AbortSignal; told: (done: number) => void },
): Promise<Map<string, Fate>> {
  const fates = new Map<string, Fate>()
  const waiting = files.values()
  const one = async (): Promise<void> => {
    for (const file of waiting) {
      signal.throwIfAborted()
      fates.set(file, fateOf(runs.get(file) ?? [], await look(join(folder, file))))
      told(fates.size)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, one))
  return fates
}
