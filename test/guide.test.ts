import { execFile, spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { beforeAll, expect, test } from 'vitest'
import { Inspector, type StreamStats } from '../src/index.ts'
import { onEnd } from './helpers/cleanup.ts'
import { missingIn, readGuide, scriptOf, type Check, type Guide } from './helpers/guide.ts'
import { withRedis } from './helpers/redis.ts'

/** docs/failing.md, executed as its reader would: in a folder in which millrace is installed, with a Redis of its own. */

const redis = withRedis()
const root = join(import.meta.dirname, '..')
const MARK = '=== to be checked'
/** Some forty commands and the waits between them take twenty seconds; a slow machine may have more. */
const MOST_MS = 150_000

let guide: Guide
let folder = ''

beforeAll(async () => {
  guide = readGuide(await readFile(join(root, 'docs/failing.md'), 'utf8'))
  folder = await mkdtemp(join(tmpdir(), 'millrace-guide-'))
  onEnd(() => rm(folder, { recursive: true, force: true }))
  await install(folder)
  for (const { name, text } of guide.files) await writeFile(join(folder, name), text)
})

test('every section of docs/failing.md has commands that say what they print, and every file on it is run by one', () => {
  const { checks } = scriptOf(guide, MARK)
  expect(guide.sections.length).toBeGreaterThan(0)
  expect(guide.sections.filter((title) => !checks.some(({ section }) => section === title))).toEqual([])
  const commands = guide.commands.map(({ text }) => text).join('\n')
  expect(guide.files.filter(({ name }) => !commands.includes(name))).toEqual([])
})

test('the TypeScript of docs/failing.md has no type errors', async () => {
  const files = guide.files.map(({ name }) => name).filter((name) => name.endsWith('.ts'))
  const flags = '--noEmit --strict --exactOptionalPropertyTypes --target es2023 --module nodenext --types node'
  const compiler = [join(root, 'node_modules/typescript/bin/tsc'), ...flags.split(' '), ...files]
  const told = await promisify(execFile)(process.execPath, compiler, { cwd: folder }).catch((error: unknown) => error)
  expect(told).toEqual({ stdout: '', stderr: '' })
}, 120_000)

test(
  'every command and program of docs/failing.md runs as it is written, and prints what it says',
  async () => {
    const { script, checks } = scriptOf(guide, MARK)
    await writeFile(join(folder, 'guide.sh'), script)
    const { code, printed } = await run('guide.sh')
    const outputs = printed.split(`\n${MARK}\n`)
    const last = outputs.pop() ?? ''
    for (const [at, output] of outputs.entries()) {
      const check = checks[at] as Check
      const missing = missingIn(output, check)
      const where = `${check.section}, line ${check.line}`
      if (missing !== undefined) throw new Error(`${where}: no ${String(missing)} in\n${output}`)
    }
    const { section, line } = checks[outputs.length] ?? { section: 'the end', line: 0 }
    expect(
      code,
      `the commands ended, or waited in vain, before line ${line} (${section}); the last ones printed:\n${last}`,
    ).toBe(0)
    expect(outputs).toHaveLength(checks.length)
    expect(await left()).toEqual({ orders: [4, 'main 0'], payments: [0, 'main 1'], reports: [0, 'main 0'] })
  },
  MOST_MS + 10_000,
)

/** As npm would, but for the copy: the package under its name, its binary in the path. */
async function install(into: string): Promise<void> {
  const modules = join(into, 'node_modules')
  await mkdir(join(modules, '.bin'), { recursive: true })
  await symlink(root, join(modules, 'millrace'))
  await symlink(join(root, 'node_modules/@types'), join(modules, '@types'))
  const binary = join(modules, '.bin/millrace')
  await writeFile(binary, `#!/bin/sh\nexec "${process.execPath}" "${join(root, 'dist/cli/main.js')}" "$@"\n`)
  await chmod(binary, 0o755)
  await writeFile(join(into, 'package.json'), '{ "private": true, "type": "module" }\n')
}

/** By stream: delayed jobs, and its groups with their dead letters. */
async function left(): Promise<Record<string, unknown>> {
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  const groupsOf = ({ groups }: StreamStats) => groups.map(({ group, dead }) => `${group} ${dead}`)
  return Object.fromEntries(
    (await inspector.stats()).map((stats) => [stats.stream, [stats.scheduled, ...groupsOf(stats)]]),
  )
}

/** With what it leaves running in one process group, which is killed at the end of the test. */
async function run(script: string): Promise<{ code: number | null; printed: string }> {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(VITEST|NODE_|MILLRACE_|REDIS_)/.test(name))
  const path = [join(folder, 'node_modules/.bin'), process.env['PATH']].join(delimiter)
  const child = spawn('bash', ['-euo', 'pipefail', '-c', `source ${script} 2>&1`], {
    cwd: folder,
    env: { ...Object.fromEntries(inherited), PATH: path, MILLRACE_REDIS_URL: redis.url },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  const killAll = () => {
    try {
      process.kill(-(child.pid ?? 0), 'SIGKILL')
    } catch {
      // all of it has ended
    }
  }
  const tooLong = setTimeout(killAll, MOST_MS)
  onEnd(killAll)
  // Where the commands ended early, what they left running would keep the output open.
  child.once('exit', () => (clearTimeout(tooLong), killAll()))
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve))
  const printed = await text(child.stdout)
  return { code: await closed, printed }
}
