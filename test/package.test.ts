import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')

/** Without what `npm test` adds: it would send an npm of ours to the wrong folder. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !/^(npm_(package|lifecycle|config_(local|global)_)|INIT_CWD|VITEST)/.test(name),
  ),
)

describe('the package, installed into an empty folder', () => {
  let folder = ''
  let packed: string[] = []

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'millrace-package-'))
    // `npm test` has just built it; the scripts of a pack would build it again.
    const pack = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder]
    const { stdout } = await run('npm', pack, { cwd: root, env })
    const [tarball] = JSON.parse(stdout) as { filename: string; files: { path: string }[] }[]
    if (tarball === undefined) throw new Error(`expected npm pack to name a file, got: ${stdout}`)
    packed = tarball.files.map(({ path }) => path)
    await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n')
    const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', `./${tarball.filename}`]
    await run('npm', install, { cwd: folder, env })
  })

  afterAll(() => rm(folder, { recursive: true, force: true }))

  const inside = async (program: string, ...args: string[]): Promise<string> =>
    (await run(program, args, { cwd: folder, env })).stdout

  test('contains what it runs on, and no sources or tests', () => {
    expect(packed).toEqual(
      expect.arrayContaining([
        'package.json',
        'LICENSE',
        'dist/src/index.js',
        'dist/src/index.d.ts',
        'dist/cli/main.js',
      ]),
    )
    expect(packed.filter((path) => /^(src|cli|test)\/|tsbuildinfo|\.test\./.test(path))).toEqual([])
  })

  test('can be imported and has the names that a program starts with', async () => {
    const script = "console.log(JSON.stringify(Object.keys(await import('millrace'))))"
    const names = JSON.parse(await inside('node', '--input-type=module', '--eval', script)) as string[]
    expect(names).toEqual(expect.arrayContaining(['Producer', 'Worker', 'defineJob', 'handle']))
  })

  test('brings its peer', async () => {
    expect(await readFile(join(folder, 'node_modules/ioredis/package.json'), 'utf8')).toContain('"ioredis"')
  })

  test('has a binary that says its version and how it is used', async () => {
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
    expect((await inside('npx', '--no-install', 'millrace', '--version')).trim()).toBe(version)
    expect(await inside('npx', '--no-install', 'millrace', '--help')).toMatch(/usage: millrace[^]*worker/i)
  })
})
