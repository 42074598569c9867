import { AsyncLocalStorage } from 'node:async_hooks'
import { afterAll, onTestFinished } from 'vitest'

type Cleanup = () => void | Promise<void>

const atEndOfFile: Cleanup[] = []
const besideOthers = new AsyncLocalStorage<Cleanup[]>()

/** Runs at the end of the test that called it, whatever its outcome; called outside of a test, at the end of the file. */
export function onEnd(cleanup: Cleanup): void {
  const own = besideOthers.getStore()
  if (own !== undefined) return void own.push(cleanup)
  try {
    onTestFinished(cleanup)
  } catch {
    atEndOfFile.push(cleanup)
  }
}

/** The body of a `test.concurrent`: the runner cannot tell which of several running tests a cleanup belongs to. */
export function beside(body: () => Promise<void>): () => Promise<void> {
  return () => {
    const own: Cleanup[] = []
    return besideOthers.run(own, async () => {
      try {
        await body()
      } finally {
        for (const cleanup of own.splice(0).reverse()) await cleanup()
      }
    })
  }
}

afterAll(async () => {
  for (const cleanup of atEndOfFile.splice(0).reverse()) await cleanup()
})
