import { access, readdir, readFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')
const read = (path: string) => readFile(join(root, path), 'utf8').catch(() => undefined)
const { files: packed } = JSON.parse((await read('package.json')) ?? '') as { files: string[] }

/** As GitHub makes the name of a heading. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')

const withoutCode = (text: string) => text.replaceAll(/^( *)```[^]*?^\1```$/gm, '')

/** The links of a page to files of ours that lead nowhere, for somebody who has the repository or the package. */
async function deadLinks(page: string): Promise<string[]> {
  const dead: string[] = []
  for (const [, target = ''] of withoutCode((await read(page)) ?? '').matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue
    const [path = '', anchor] = target.split('#')
    const file = path === '' ? page : relative(root, join(root, dirname(page), path))
    const isPacked = !file.startsWith('examples') || packed.some((name) => file === name || file.startsWith(`${name}/`))
    if (!isPacked || !(await leadsTo(file, anchor))) dead.push(`${page}: ${target}`)
  }
  return dead
}

async function leadsTo(file: string, anchor: string | undefined): Promise<boolean> {
  const isThere = await access(join(root, file)).then(
    () => true,
    () => false,
  )
  if (anchor === undefined) return isThere
  const headings = withoutCode((await read(file)) ?? '').matchAll(/^#+ (.*)$/gm)
  return [...headings].some(([, heading = '']) => anchorOf(heading) === anchor)
}

test('every link of the pages leads to a file, to a heading that is there, and to an example that is in the package', async () => {
  const docs = await readdir(join(root, 'docs'))
  const pages = [
    'README.md',
    'CHANGELOG.md',
    ...docs.filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`),
  ]
  expect(pages.length).toBeGreaterThan(10)
  expect((await Promise.all(pages.map(deadLinks))).flat()).toEqual([])
})
