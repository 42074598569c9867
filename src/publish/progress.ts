/** What is made of the jobs that wait in a producer, for whoever waits for that. */
export class Progress {
  readonly #waiting = new Set<() => void>()

  made(): void {
    for (const told of this.#waiting) told()
  }

  /** Resolves when a batch was answered, or soon: what it waits for may also have timed out. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#waiting.delete(done)
        resolve()
      }
      const timer = setTimeout(done, 50)
      this.#waiting.add(done)
    })
  }
}
