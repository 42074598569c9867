#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { createRequire } from 'node:module'
import { failedCheck } from './check/failed.ts'
import { registerAudit } from './commands/audit.ts'
import { registerCancel } from './commands/cancel.ts'
import { registerCheck } from './commands/check.ts'
import { registerCron } from './commands/cron.ts'
import { registerDead } from './commands/dead.ts'
import { registerDemo } from './commands/demo.ts'
import { registerDoctor } from './commands/doctor.ts'
import { registerExplain } from './commands/explain.ts'
import { registerExporter } from './commands/exporter.ts'
import { registerFind } from './commands/find.ts'
import { registerGroups } from './commands/groups.ts'
import { registerPending } from './commands/pending.ts'
import { registerPause } from './commands/pause.ts'
import { registerPublish } from './commands/publish.ts'
import { registerReplay } from './commands/replay.ts'
import { registerReplays } from './commands/replays.ts'
import { registerScheduled } from './commands/scheduled.ts'
import { registerSettings } from './commands/settings.ts'
import { registerStats } from './commands/stats.ts'
import { registerTail } from './commands/tail.ts'
import { registerTop } from './commands/top.ts'
import { registerTrim } from './commands/trim.ts'
import { registerWorker } from './commands/worker.ts'
import { registerWorkers } from './commands/workers.ts'
import type { CliContext } from './context.ts'
import { codeOf, EXIT, exitCodeOf, isExpected } from './exit.ts'
import { messageLines } from './message.ts'
import { printable, styled } from './output.ts'
import { columnsOf, setParagraphs } from './paragraphs.ts'
import { checkRedisUrl, DEFAULT_REDIS_URL, redact } from './redis-url.ts'

/**
 * The command line. This file alone knows the process: its arguments, its environment, its exit. The commands load what is
 * heavy only when they run, so that help and usage errors come at once.
 */

const HELP = `
Redis is where --redis says, else MILLRACE_REDIS_URL, else REDIS_URL, else ${DEFAULT_REDIS_URL}.
Data goes to stdout, messages to stderr. NO_COLOR turns colours off.
Exit codes: 0 ok, 1 failed, 2 usage, 3 Redis unreachable or refused, 4 not found, 5 partly done, 130 interrupted.

Examples:
  $ millrace demo
  $ millrace worker handlers.ts --stream orders
  $ millrace publish orders send-receipt '{"order":42}'
  $ millrace stats --watch
  $ millrace top
  $ millrace explain orders 1795245552380-0
  $ millrace dead list orders main --by-error
  $ millrace replay orders --from -1h --job send-receipt --group main
  $ millrace audit orders --group main
  $ millrace help publish`

const ERROR = 'error:'
const { env, stdout, stderr } = process

const program = new Command('millrace')
  .description('A job system on Redis Streams: publish jobs, run workers, see what is going on.')
  .version(versionOfPackage(), '--version', 'print the version')
  .helpOption('-h, --help', 'show this help')
  .option('--redis <url>', 'where Redis is')
  .configureHelp({ showGlobalOptions: true, subcommandTerm: (command) => command.name() })
  .configureOutput({
    outputError: (text, write) => write(errorLine(usageText(text))),
    writeOut: (text) => void stdout.write(setParagraphs(text, columnsOf(stdout))),
    getOutHelpWidth: () => columnsOf(stdout),
  })
  .addHelpText('after', HELP)
  .exitOverride()

let called: Command | undefined
program.hook('preAction', (_, command) => {
  called = command
})

const context: CliContext = {
  redis() {
    const { url, origin } = chosenRedis()
    return checkRedisUrl(url, origin)
  },
  env,
  // Looked at only by whom needs it: opening it is work, and it may be closed.
  get stdin() {
    return process.stdin
  },
  stdout,
  stderr,
  say: (line) => void stderr.write(`${messageText(line)}\n`),
  finish(code) {
    process.exitCode = code
  },
  exitNow: (code) => process.exit(code),
}

program.commandsGroup('Run jobs:')
registerDemo(program, context)
registerWorker(program, context)
registerPublish(program, context)
registerScheduled(program, context)
registerCron(program, context)
registerCancel(program, context)
program.commandsGroup('See what is going on:')
registerStats(program, context)
registerTop(program, context)
registerWorkers(program, context)
registerPending(program, context)
registerTail(program, context)
registerFind(program, context)
registerExplain(program, context)
registerDoctor(program, context)
registerCheck(program, context)
registerExporter(program, context)
program.commandsGroup('Repair:')
registerDead(program, context)
registerPause(program, context)
registerReplay(program, context)
registerReplays(program, context)
registerAudit(program, context)
program.commandsGroup('Streams and groups:')
registerGroups(program, context)
registerSettings(program, context)
registerTrim(program, context)
program.commandsGroup('Help:').helpCommand('help [command]', 'show the help of a command')

// Messages that nobody can be told, since their reader is gone or the disk full, must not end what goes on for days.
stderr.on('error', () => {})
// Whoever read our output has seen enough (`millrace stats | head -1`).
stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? (process.exitCode ?? EXIT.ok) : EXIT.failed)
})

try {
  await program.parseAsync()
} catch (error) {
  const code = fail(error)
  // Not by itself: a connection that never came about holds the process for seconds. What was written is read first.
  stdout.write('', () => stderr.write('', () => process.exit(code)))
}

/** Says what went wrong, on one line, and what the exit code is. */
function fail(error: unknown): number {
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT.ok
  if (calledWords()[0] === 'check') return failMonitor(error)
  if (error instanceof CommanderError) return EXIT.usage
  const message = error instanceof Error ? inFlags(error) : String(error)
  if (isExpected(error)) {
    stderr.write(`${errorLine(message)}${pointed(error)}`)
  } else {
    stderr.write(errorLine(`${message} (unexpected; MILLRACE_DEBUG=1 shows where it comes from)`))
    if (env['MILLRACE_DEBUG'] && error instanceof Error)
      stderr.write(`${redact(error.stack ?? '', chosenRedis().url)}\n`)
  }
  return exitCodeOf(error)
}

/** What a monitor called: it reads stdout, and knows only its own four codes. */
function failMonitor(error: unknown): number {
  const message = error instanceof Error ? inFlags(error) : String(error)
  const json = process.argv.includes('--json') ? ['--json'] : []
  const { line, code } = failedCheck([...calledWords(), ...json], redact(message, chosenRedis().url))
  stdout.write(line)
  return code
}

function errorLine(message: string): string {
  const text = messageText(`${ERROR} ${redact(message, chosenRedis().url).trim()}`)
  return `${styled(stderr, 'red', ERROR)}${text.slice(ERROR.length)}\n`
}

/** On a terminal it is not left to that where lines break. */
function messageText(message: string): string {
  const text = printable(message)
  return stderr.isTTY ? messageLines(text, columnsOf(stderr)).join('\n') : text
}

/** The expression that is no filter, with the character where it goes wrong. */
function pointed(error: unknown): string {
  const { expression, at } = error as { expression?: unknown; at?: unknown }
  if (typeof expression !== 'string' || typeof at !== 'number') return ''
  const before = printable(expression.slice(0, at))
  return `  ${before}${printable(expression.slice(at))}\n  ${' '.repeat(before.length)}^\n`
}

/** The words of the library's message that name an option, as this command line has it. */
function inFlags(error: Error): string {
  if (!codeOf(error)?.startsWith('ERR_')) return error.message
  return error.message.replace(/`([A-Za-z]+)`/g, (written, name: string) => {
    const option = called?.options.find((each) => each.attributeName() === name)
    return option?.long === undefined || option.long === null ? written : `\`${option.long}\``
  })
}

/** The command that is called, as far as the words name one. */
function calledWords(): string[] {
  const words: string[] = []
  let command: Command | undefined = program
  for (const [at, word] of process.argv.slice(2).entries()) {
    // The one option that may stand before a command.
    if (word.startsWith('--redis') || process.argv[at + 1] === '--redis') continue
    command = command.commands.find((each) => each.name() === word)
    if (command === undefined) break
    words.push(word)
  }
  return words
}

/** A usage error of the parser: what is wrong and what may have been meant, or where it is told. */
function usageText(text: string): string {
  const line = text.replace(/^error: /, '').trim()
  return line.includes('Did you mean') ? line : `${line} (see ${['millrace', ...calledWords(), '--help'].join(' ')})`
}

function chosenRedis(): { url: string; origin: string } {
  const { redis } = program.opts<{ redis?: string }>()
  if (redis !== undefined) return { url: redis, origin: '--redis' }
  for (const origin of ['MILLRACE_REDIS_URL', 'REDIS_URL']) {
    const url = env[origin]
    if (url) return { url, origin }
  }
  return { url: DEFAULT_REDIS_URL, origin: 'the default' }
}

function versionOfPackage(): string {
  const { version } = createRequire(import.meta.url)('millrace/package.json') as { version: string }
  return version
}
