import { existsSync, readFileSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, test } from 'vitest'

/** docs/coming-from.md promises nothing that is not there: each row has a test, and what it calls ours is ours. */

const root = fileURLToPath(new URL('..', import.meta.url))

interface Row {
  readonly line: number
  readonly there: string
  readonly here: string
  readonly command: string
  readonly shownBy: string
}

let rows: Row[] = []
let library = ''
let exported = ''
let commands = ''

/** All files of a folder as one text. */
async function textOf(folder: string): Promise<string> {
  const names = await readdir(join(root, folder), { recursive: true })
  const texts = names.filter((name) => name.endsWith('.ts')).map((name) => readFile(join(root, folder, name), 'utf8'))
  return (await Promise.all(texts)).join('\n')
}

beforeAll(async () => {
  const page = await readFile(join(root, 'docs/coming-from.md'), 'utf8')
  rows = page.split('\n').flatMap((text, at) => {
    if (!text.startsWith('| ') || /^\| (there|-+) /.test(text)) return []
    const cells = text
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map((cell) => cell.trim())
    const [there = '', here = '', command = '', shownBy = ''] = cells
    if (cells.length !== 4) throw new Error(`line ${at + 1} has ${cells.length} cells`)
    return [{ line: at + 1, there, here, command, shownBy }]
  })
  library = await textOf('src')
  exported = (await Promise.all(['index', 'otel'].map((name) => readFile(join(root, `src/${name}.ts`), 'utf8')))).join(
    '\n',
  )
  commands = await textOf('cli')
})

const spans = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)

test('every row is shown by a test that there is, under its title, or says not yet', () => {
  expect(rows.length).toBeGreaterThan(150)
  const wrong = rows.filter(({ here, shownBy }) => {
    if (shownBy === 'not yet') return !here.startsWith('not yet')
    const [, title = '', file = ''] = /^\[(.+)\]\(\.\.\/(test\/[\w/-]+\.test\.ts)\)$/.exec(shownBy) ?? []
    return !existsSync(join(root, file)) || file === '' || !titles(file).includes(title)
  })
  expect(wrong).toEqual([])
})

/** The titles of a file's tests, as they are written there. */
function titles(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8')
  const found = text.matchAll(/\b(?:test|it)(?:\.each\([^]*?\))?\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g)
  return [...found].map(([, , title = '']) => title.replace(/\\(.)/g, '$1'))
}

test('every name that a row calls ours is exported, or is a member of what is', () => {
  const wrong = rows.flatMap(({ line, here }) => {
    const names = spans(here)
      .filter((code) => !code.startsWith('millrace/') && !/^'.*'$/.test(code))
      .flatMap((code) => [...code.replace(/'[^']*'/g, '').matchAll(/(\.?)([A-Za-z_]\w*)(\()?/g)])
    return names.flatMap(([, dot, name = '', call]) =>
      isOurs(name, dot !== '' || call === undefined) ? [] : [`${line}: ${name}`],
    )
  })
  expect(wrong).toEqual([])
})

/** Where a name with a capital, or one that is called by itself, must be exported, others must be declared somewhere. */
function isOurs(name: string, mayBeMember: boolean): boolean {
  if (new RegExp(`\\b${name}\\b`).test(exported)) return true
  if (/^[A-Z]/.test(name)) return ['AsyncLocalStorage', 'SIGTERM'].includes(name)
  if (['producer', 'worker', 'inspector', 'job', 'data', 'next'].includes(name)) return true
  return mayBeMember && new RegExp(`(^|[\\s.'])${name}['?]?\\s*[:(<]|get ${name}\\(|'${name}'`, 'm').test(library)
}

test('every command and flag that a row names is one of the command line', () => {
  const wrong = rows.flatMap(({ line, command }) => {
    const said = spans(command).filter((code) => /^(millrace|--)/.test(code))
    const words = said.flatMap((code) => code.split(' ').filter((word) => word !== 'millrace'))
    const isKnown = (word: string) =>
      word.startsWith('--')
        ? new RegExp(`['\`]${word}[ '\`]`).test(commands)
        : new RegExp(`(?:command\\(|jobCommand\\(\\w+, )'${word}'|^ +${word}: `, 'm').test(commands)
    return words.filter((word) => !isKnown(word)).map((word) => `${line}: ${word}`)
  })
  expect(wrong).toEqual([])
})
