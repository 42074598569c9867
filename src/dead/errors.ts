import type { DeadLetter } from '../redis/dead.ts'

/** Dead letters of the same error put together, so that one look tells what a hundred thousand of them died of. Pure. */

export interface DeadErrorGroup {
  readonly reason: string
  /** The class of the error. */
  readonly error: string
  /** Its message, with numbers, ids and quoted texts replaced: what differs from job to job. */
  readonly message: string
  readonly count: number
  /** When the first and the last of them died, in ms since the epoch. */
  readonly firstMs: number
  readonly lastMs: number
  /** A job id of the group: of the letter that was looked at first. */
  readonly exampleId: string
}

export class DeadErrorGroups {
  readonly #groups = new Map<string, { -readonly [Key in keyof DeadErrorGroup]: DeadErrorGroup[Key] }>()

  add({ id, reason, error, message, deadMs }: DeadLetter): void {
    const pattern = messagePattern(message)
    const key = JSON.stringify([reason, error, pattern])
    const group = this.#groups.get(key)
    if (group === undefined) {
      const ends = { firstMs: deadMs, lastMs: deadMs }
      this.#groups.set(key, { reason, error, message: pattern, count: 1, ...ends, exampleId: id })
      return
    }
    group.count += 1
    group.firstMs = Math.min(group.firstMs, deadMs)
    group.lastMs = Math.max(group.lastMs, deadMs)
  }

  /** The most frequent first. */
  list(): DeadErrorGroup[] {
    return [...this.#groups.values()].sort((a, b) => b.count - a.count || b.lastMs - a.lastMs)
  }
}

const MOST_CHARACTERS = 300

/**
 * What messages of the same error have in common: the text with `…` for what is quoted, `<id>` for a UUID, `<hex>` for hex
 * digits and `<n>` for numbers. An apostrophe inside a word quotes nothing.
 */
export function messagePattern(message: string): string {
  const pattern = message
    .slice(0, 2 * MOST_CHARACTERS)
    .replace(/"[^"]*"/g, '"…"')
    .replace(/`[^`]*`/g, '`…`')
    .replace(/(?<![\p{L}\p{N}])'[^']*'(?![\p{L}\p{N}])/gu, "'…'")
    .replace(/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/gi, '<id>')
    .replace(/\b0x[0-9a-f]+\b/gi, '<hex>')
    .replace(/\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b/gi, '<hex>')
    .replace(/\d+(?:[.,]\d+)*/g, '<n>')
  return pattern.length > MOST_CHARACTERS ? `${pattern.slice(0, MOST_CHARACTERS - 1)}…` : pattern
}
