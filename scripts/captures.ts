import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { format, resolveConfig } from 'prettier'
import { startRedis } from '../cli/redis-server.ts'

/**
 * `npm run docs:cli`: writes docs/cli.md from scripts/cli.md: its commands run in a terminal of 80 columns, in their order, on a
 * Redis of their own, and what they print is put below them. Blocks of `sh setup` run too and are left out. Of `sh screen` what
 * is shown is the screen as it was when its keys had been pressed, the last of which quits; what goes on is ended with Ctrl-C
 * in `sh ends`. What runs beside the shell is ended at the end. The times and ids in it are those of the day on which it was made.
 */

const root = join(import.meta.dirname, '..')
const COLUMNS = 80
const SCREEN_ROWS = 14
const MARK = '@@@ captured'

const page = await readFile(join(root, 'scripts/cli.md'), 'utf8')
const folder = await mkdtemp(join(tmpdir(), 'millrace-captures-'))
const redis = await startRedis()
try {
  await prepare(folder)
  const outputs = await run(commandsOf(page))
  const path = join(root, 'docs/cli.md')
  await writeFile(path, await format(filled(page, outputs), { ...(await resolveConfig(path)), parser: 'markdown' }))
} finally {
  await redis.stop()
  await rm(folder, { recursive: true, force: true })
}

interface Block {
  readonly kind: string
  readonly commands: readonly string[]
}

function commandsOf(markdown: string): Block[] {
  return [...markdown.matchAll(/^```sh ?(\w*)\n([\s\S]*?)^```$/gm)].map(([, kind = '', body = '']) => {
    const commands = body.trim().split(/\n(?!\s)/)
    return { kind, commands: kind === 'setup' ? [body] : commands }
  })
}

/** Files that the commands name, and millrace as a user has it. */
async function prepare(into: string): Promise<void> {
  const modules = join(into, 'node_modules')
  await mkdir(join(modules, '.bin'), { recursive: true })
  await symlink(root, join(modules, 'millrace'))
  await symlink(join(root, 'node_modules/ioredis'), join(modules, 'ioredis'))
  const binary = `#!/bin/sh\nexec "${process.execPath}" "${join(root, 'dist/cli/main.js')}" "$@"\n`
  await writeFile(join(modules, '.bin/millrace'), binary, { mode: 0o755 })
}

/** Every command's output, in their order. */
async function run(blocks: readonly Block[]): Promise<string[]> {
  const lines = blocks.flatMap(({ kind, commands }) =>
    kind === 'setup' ? commands : commands.flatMap((command) => [asRun(kind, command), `printf '\\n${MARK}\\n'`]),
  )
  await writeFile(join(folder, 'captures.sh'), `stty cols ${COLUMNS} rows 24\n${lines.join('\n')}\n`)
  const path = `${join(folder, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}`
  const env = { ...process.env, PATH: path, MILLRACE_REDIS_URL: redis.url, TERM: 'xterm', LANG: 'C.UTF-8', TZ: 'UTC' }
  const child = spawn('script', ['-qec', 'bash captures.sh', '/dev/null'], {
    cwd: folder,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const printed = (await text(child.stdout)).replace(/\r+\n/g, '\n')
  return printed
    .split(`\n${MARK}\n`)
    .slice(0, -1)
    .map((each) => plain(each).replaceAll(folder, '/app'))
}

/** Keys go to a terminal of their own: this one has none to press them. */
function asRun(kind: string, command: string): string {
  if (kind === 'ends') return `timeout --foreground -s INT 3 ${command}`
  if (kind !== 'screen') return command
  const keys = "(sleep 2; printf '\\r'; sleep 2; printf '2'; sleep 2; printf 'q'; sleep 1)"
  return `${keys} | script -qec 'stty cols ${COLUMNS} rows ${SCREEN_ROWS}; ${command}' /dev/null`
}

/** The lines of the last whole frame of a program that has the whole screen; undefined for any other. */
function screenOf(printed: string): string | undefined {
  if (!printed.includes('\x1b[?1049h')) return undefined
  const frames = printed.split('\x1b[H').filter((frame) => frame.includes('\x1b[J'))
  return (frames.at(-1) ?? '').split('\x1b[J')[0]?.replaceAll('\x1b[K', '')
}

/** What stays on a terminal: no colours, and of lines that are drawn over each other the last. */
function plain(printed: string): string {
  return (screenOf(printed) ?? printed)
    .replace(/[^\n]*\x1b\[K/g, '') // eslint-disable-line no-control-regex -- lines of progress that were cleared
    .replace(/\x1b\[[\d;?]*[A-Za-z]/g, '') // eslint-disable-line no-control-regex -- colours
    .replace(/[^\n]*\r/g, '')
    .replace(/[ \t]+$/gm, '')
}

function filled(markdown: string, outputs: readonly string[]): string {
  let at = 0
  return markdown
    .replace(/^```sh setup\n[\s\S]*?^```\n\n/gm, '')
    .replace(/^```sh ?\w*\n([\s\S]*?)^```$/gm, (_, body: string) => {
      const shown = body.trim().split(/\n(?!\s)/)
      const parts = shown.map((command) => {
        const output = (outputs[at++] ?? '').replace(/^\n+/, '').trimEnd()
        return `$ ${command}\n${output}`.trimEnd()
      })
      return `\`\`\`\`text\n${parts.join('\n\n')}\n\`\`\`\``
    })
}
