import { expect, test } from 'vitest'
import { startChild } from '../helpers/child.ts'

const SOAK = new URL('../../scripts/soak-publish.ts', import.meta.url)

/** Its first two seconds hold faults of many kinds, none of them long, and producers that are closed in the middle of some. */
const SEED = '71383'

test('a soak of some seconds keeps every promise, and says what it did', async () => {
  const soak = startChild(SOAK, { args: ['--seed', SEED, '--seconds', '2'] })
  const { code } = await soak.exited

  expect(soak.stdout.join('\n')).toMatch(
    /^seed 71383, [^]*\d+ jobs published[^]*peak RSS \d+ MiB.*\nevery promise was kept$/,
  )
  expect(code).toBe(0)
})

test('a soak with an option that there is not says so and does nothing', async () => {
  const soak = startChild(SOAK, { args: ['--minutes', 'many'] })

  expect((await soak.exited).code).toBe(2)
  expect(soak.stderr.join('\n')).toMatch(/^error: expected --minutes to be a number above 0, got many/)
})
