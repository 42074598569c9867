import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { beforeAll, describe, expect, test } from 'vitest'
import { onEnd } from '../helpers/cleanup.ts'
import { cliMain } from '../helpers/cli-main.ts'
import { connectTo, startServer } from '../helpers/redis.ts'
import { millrace } from './run.ts'

/** What every command says of itself: found by asking the help, as a new user would. */

/** Those that go on until they are told to end are told so after this long; by then they would have refused their words. */
const PATIENCE_MS = 3000

interface Page {
  readonly words: readonly string[]
  readonly text: string
  readonly examples: readonly string[]
}

let pages: Page[] = []
let folder = ''

beforeAll(async () => {
  pages = await pagesBelow([])
  folder = await mkdtemp(join(tmpdir(), 'millrace-help-'))
  onEnd(() => rm(folder, { recursive: true, force: true }))
  await writeFile(join(folder, 'handlers.ts'), "export default { 'send-receipt': () => undefined }\n")
  await writeFile(join(folder, 'jobs.ndjson'), '{"job":"send-receipt","data":{"order":42}}\n')
  await writeFile(join(folder, 'nightly.ndjson.gz'), gzipSync('{"job":"send-receipt","data":{"order":43}}\n'))
  await writeFile(join(folder, 'failed.txt'), '1795245552380-0\n')
  await writeFile(join(folder, 'ids.txt'), '1795245552380-0\n')
})

test('every command is found by asking for help, down to the last one', () => {
  const names = pages.map(({ words }) => words.join(' '))
  expect(names).toEqual(expect.arrayContaining(['worker', 'publish', 'stats', 'dead redrive', 'groups list']))
})

test('every command shows at least two examples, which call it by its name', () => {
  const poor = pages.filter(({ words, examples }) => {
    const own = examples.filter((example) => example.startsWith(`millrace ${words.join(' ')}`))
    return own.length < 2
  })
  expect(poor.map(({ words }) => words.join(' '))).toEqual([])
})

test('no line of a help but a command is wider than 80 columns in a pipe, and none has a tab or a colour', () => {
  for (const { words, text } of pages) {
    const isCommand = (line: string) => line.startsWith('  $')
    const wide = text.split('\n').filter((line) => (line.length > 80 && !isCommand(line)) || line.includes('\t'))
    expect(text.includes('\u001b'), words.join(' ')).toBe(false)
    expect(wide, words.join(' ')).toEqual([])
  }
})

test('docs/cli.md shows what every command prints', async () => {
  const shown = await readFile(fileURLToPath(new URL('../../docs/cli.md', import.meta.url)), 'utf8')
  const called = shown.split('\n').filter((line) => line.startsWith('$ millrace '))
  // The README has a picture of the demo.
  const missing = pages.filter(
    ({ words }) =>
      words.join() !== 'demo' && !called.some((line) => `${line} `.startsWith(`$ millrace ${words.join(' ')} `)),
  )
  expect(missing.map(({ words }) => words.join(' '))).toEqual([])
})

describe('the examples', () => {
  // Each on a Redis that holds what it speaks of and no more: groups that another example made would be in its way.
  test('are all understood as they stand: none is refused for its words', async () => {
    const lines = [...new Set(pages.flatMap(({ examples }) => examples))].filter((line) => !line.includes('demo'))
    expect(lines.length).toBeGreaterThan(pages.length)
    const left = lines.values()
    const refused: string[] = []
    const lane = async () => {
      const { url } = await startServer()
      const client = connectTo(url)
      for (const line of left) {
        await client.flushall()
        await client.xadd('orders', '1795245552380-0', 'job', 'send-receipt', 'data', '{"order":42}')
        await client.xgroup('CREATE', 'orders', 'main', '0')
        const refusal = await refusalOf(line, url)
        if (refusal !== undefined) refused.push(`${line}: ${refusal}`)
      }
    }
    await Promise.all(Array.from({ length: 6 }, lane))
    expect(refused).toEqual([])
  }, 240_000)
})

const NO_COMMANDS = ['Arguments', 'Options', 'Global Options', 'Examples', 'Help']

async function pagesBelow(words: readonly string[]): Promise<Page[]> {
  const { stdout: text } = await millrace([...words, '--help'], { env: { NO_COLOR: '1' } })
  const lists = [...text.matchAll(/^([A-Z][a-z ]+):\n((?: {2}.*\n?)+)/gm)]
  const listed = lists.filter(([, title = '']) => !NO_COMMANDS.includes(title)).map(([, , lines = '']) => lines)
  const found = [...listed.join('').matchAll(/^ {2}([a-z]+)\b/gm)].map(([, name = '']) => name)
  const names = found.filter((name) => name !== 'help')
  if (names.length === 0) return [{ words, text, examples: examplesIn(text) }]
  return (await Promise.all(names.map((name) => pagesBelow([...words, name])))).flat()
}

function examplesIn(text: string): string[] {
  return [...text.matchAll(/^ {2}\$ (millrace .*)$/gm)].map(([, line = '']) => line)
}

/** Why an example is refused: undefined if it is not. Run by a shell, as it would be. */
function refusalOf(line: string, url: string): Promise<string | undefined> {
  const shell = `millrace() { "${process.execPath}" "${cliMain(line.split(' '))}" "$@"; }; ${line}`
  const env = { PATH: process.env['PATH'], NO_COLOR: '1', MILLRACE_REDIS_URL: url }
  const child = spawn('bash', ['-c', shell], { cwd: folder, env, stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  const end = () => {
    try {
      process.kill(-(child.pid ?? 0), 'SIGKILL')
    } catch {
      // it has ended
    }
  }
  const timer = setTimeout(end, PATIENCE_MS)
  onEnd(end)
  // Not `close`: the processes of a pool that was killed hold its output until they have drained.
  return new Promise((resolve) => {
    child.once('exit', (code) => {
      clearTimeout(timer)
      // A check answers a monitor, which takes 2 for an alarm: what it does not understand is 3.
      const refusal = line.startsWith('millrace check ') ? 3 : 2
      const isRefused =
        (code === refusal && !/nothing was changed|needs a terminal/.test(said)) ||
        /expected `|unknown (option|command)|too many arguments/.test(said)
      resolve(isRefused ? said : undefined)
    })
  })
}
