import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { describe, expect, test } from 'vitest'
import { pages } from '../scripts/pages.ts'
import { ERROR_TABLE } from '../src/error-table.ts'
import { EVENTS } from '../src/event-table.ts'
import { PRODUCER_EVENTS } from '../src/producer-events.ts'

const made = (await pages()).map(({ path, text }) => ({ name: basename(path), path, text }))

describe('the pages of docs/ that are made from code', () => {
  test.each(made)('$name is what `npm run docs` writes', async ({ path, text }) => {
    expect(await readFile(path, 'utf8')).toBe(text)
  })

  test('have a row for each event and each code', () => {
    const text = made.map((page) => page.text).join('\n')
    for (const name of [EVENTS, PRODUCER_EVENTS, ERROR_TABLE].flatMap(Object.keys)) {
      expect(text.split('\n').filter((line) => line.startsWith(`| \`${name}\` `))).toHaveLength(1)
    }
  })
})
