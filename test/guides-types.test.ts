import { expect, test } from 'vitest'
import { openGuide, typeErrors } from './helpers/guide-runner.ts'

test('the TypeScript of the guides has no type errors', async () => {
  const guides = await Promise.all(
    ['failing', 'recovery', 'tracing', 'cron', 'order', 'batches', 'chains', 'results'].map((page) =>
      openGuide(`docs/${page}.md`),
    ),
  )
  expect(guides.map(({ guide }) => guide.files.some(({ name }) => name.endsWith('.ts')))).toEqual(
    guides.map(() => true),
  )
  expect(await typeErrors(guides)).toBe('')
})
