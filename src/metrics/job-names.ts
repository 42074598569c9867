/**
 * Something for each job name, for a bounded number of names: producers in any language choose them, and every name is a
 * handful of series for as long as the process lives. What comes after the bound shares one entry, named OTHER.
 */

/** Most names that have an entry of their own. */
export const MOST_JOB_NAMES = 100
/** What all further names share. A job that is really called so shares it too. */
export const OTHER_JOBS = '__other__'
/** For entries that are no jobs, and so have no name. */
export const NO_JOB = '__malformed__'

export class JobNames<Entry> {
  readonly #make: (name: string) => Entry
  readonly #onFull: () => void
  readonly #byName = new Map<string, Entry>()
  #other: Entry | undefined
  #isFull = false

  constructor(make: (name: string) => Entry, onFull: () => void) {
    this.#make = make
    this.#onFull = onFull
  }

  of(name: string): Entry {
    const known = this.#byName.get(name)
    if (known !== undefined) return known
    if (name === OTHER_JOBS) return this.#otherEntry()
    if (this.#byName.size >= MOST_JOB_NAMES) {
      if (!this.#isFull) this.#onFull()
      this.#isFull = true
      return this.#otherEntry()
    }
    const made = this.#make(name)
    this.#byName.set(name, made)
    return made
  }

  *[Symbol.iterator](): Generator<[string, Entry]> {
    yield* this.#byName
    if (this.#other !== undefined) yield [OTHER_JOBS, this.#other]
  }

  #otherEntry(): Entry {
    this.#other ??= this.#make(OTHER_JOBS)
    return this.#other
  }
}
