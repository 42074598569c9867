import { afterAll, onTestFinished } from 'vitest'

type Cleanup = () => void | Promise<void>

const atEndOfFile: Cleanup[] = []

/** Runs at the end of the test that called it, whatever its outcome; called outside of a test, at the end of the file. */
export function onEnd(cleanup: Cleanup): void {
  try {
    onTestFinished(cleanup)
  } catch {
    atEndOfFile.push(cleanup)
  }
}

afterAll(async () => {
  for (const cleanup of atEndOfFile.splice(0).reverse()) await cleanup()
})
