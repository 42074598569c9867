import { expect, test } from 'vitest'
import { QuietWarnings } from '../src/quiet-warnings.ts'

test('however many names fail, there is a bound to what is said, and what is not said is counted', () => {
  const warnings = new QuietWarnings()
  const names = Array.from({ length: 150 }, (_, at) => `job-${at}`)
  const startedMs = performance.now()
  let said = 0
  for (let round = 0; round < 100; round++) {
    for (const name of names) if (warnings.due(name) !== undefined) said += 1
  }
  const seconds = Math.floor((performance.now() - startedMs) / 1000) + 1
  expect(said).toBeGreaterThanOrEqual(100)
  expect(said).toBeLessThanOrEqual(101 * seconds)
})
