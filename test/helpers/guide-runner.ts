import { execFile, spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { onEnd } from './cleanup.ts'
import { CLI_MAIN, cliMain } from './cli-main.ts'
import { missingIn, readGuide, scriptOf, type Check, type Guide } from './guide.ts'

/** Executes a guide as its reader would: in a folder in which millrace is installed, with a Redis of its own. */

const root = join(import.meta.dirname, '../..')
const MARK = '=== to be checked'
/** Some forty commands and the waits between them take twenty seconds; a slow machine may have more. */
export const MOST_MS = 150_000

export interface OpenGuide {
  readonly guide: Guide
  readonly folder: string
}

/** @param path of the page, from the root of the project. */
export async function openGuide(path: string): Promise<OpenGuide> {
  const guide = readGuide(await readFile(join(root, path), 'utf8'))
  const folder = await mkdtemp(join(tmpdir(), 'millrace-guide-'))
  onEnd(() => rm(folder, { recursive: true, force: true }))
  await install(folder)
  for (const { name, text } of guide.files) await writeFile(join(folder, name), text)
  return { guide, folder }
}

/** Sections without a command that says what it prints, and files that no command runs. */
export function idleParts({ guide }: OpenGuide): string[] {
  const { checks } = scriptOf(guide, MARK)
  const commands = guide.commands.map(({ text }) => text).join('\n')
  return [
    ...(guide.sections.length === 0 ? ['the whole page'] : []),
    ...guide.sections.filter((title) => !checks.some(({ section }) => section === title)),
    ...guide.files.map(({ name }) => name).filter((name) => !commands.includes(name)),
  ]
}

/** What the compiler says of the TypeScript of all of them, in one program; nothing, if all is well. */
export async function typeErrors(guides: readonly OpenGuide[]): Promise<string> {
  const files = guides.flatMap(({ guide, folder }) => guide.files.map(({ name }) => join(folder, name)))
  const flags =
    '--noEmit --strict --exactOptionalPropertyTypes --target es2023 --module nodenext --types node --allowImportingTsExtensions'
  const scripts = files.filter((name) => name.endsWith('.ts'))
  const compiler = [join(root, 'node_modules/typescript/bin/tsc'), ...flags.split(' '), ...scripts]
  return promisify(execFile)(process.execPath, compiler, { cwd: guides[0]?.folder }).then(
    ({ stdout, stderr }) => `${stdout}${stderr}`,
    (error: unknown) => String((error as { stdout?: unknown }).stdout ?? error),
  )
}

/** Runs all of its commands. @throws Error that says on which line what was not printed, or which commands failed. */
export async function runGuide({ guide, folder }: OpenGuide, redisUrl: string): Promise<void> {
  const { script, checks } = scriptOf(guide, MARK)
  await writeFile(join(folder, 'guide.sh'), script)
  const { code, printed } = await run(folder, redisUrl)
  const outputs = printed.split(`\n${MARK}\n`)
  const last = outputs.pop() ?? ''
  for (const [at, output] of outputs.entries()) {
    const check = checks[at] as Check
    const missing = missingIn(output, check)
    if (missing !== undefined)
      throw new Error(`${check.section}, line ${check.line}: no ${String(missing)} in\n${output}`)
  }
  if (code === 0 && outputs.length === checks.length) return
  const { section, line } = checks[outputs.length] ?? { section: 'the end', line: 0 }
  const where = `line ${line} (${section})`
  throw new Error(
    `the commands ended with ${code}, or waited in vain, before ${where}; the last ones printed:\n${last}`,
  )
}

/** As npm would, but for the copy: the package under its name, its binary in the path. */
async function install(into: string): Promise<void> {
  const modules = join(into, 'node_modules')
  await mkdir(join(modules, '.bin'), { recursive: true })
  await symlink(root, join(modules, 'millrace'))
  for (const name of ['@types', 'ioredis', '@opentelemetry'])
    await symlink(join(root, 'node_modules', name), join(modules, name))
  const binary = join(modules, '.bin/millrace')
  const run = (main: string) => `exec "${process.execPath}" "${main}" "$@"`
  const script = `case "$1" in worker|demo) ${run(CLI_MAIN)} ;; *) ${run(cliMain([]))} ;; esac`
  await writeFile(binary, `#!/bin/sh\n${script}\n`)
  await chmod(binary, 0o755)
  await writeFile(join(into, 'package.json'), '{ "private": true, "type": "module" }\n')
}

/** With what it leaves running in one process group, which is killed at the end of the test. */
async function run(folder: string, redisUrl: string): Promise<{ code: number | null; printed: string }> {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(VITEST|NODE_|MILLRACE_|REDIS_)/.test(name))
  const path = [join(folder, 'node_modules/.bin'), process.env['PATH']].join(delimiter)
  const child = spawn('bash', ['-euo', 'pipefail', '-c', `source guide.sh 2>&1`], {
    cwd: folder,
    env: { ...Object.fromEntries(inherited), PATH: path, MILLRACE_REDIS_URL: redisUrl },
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
