import { Option, type Command } from 'commander'
import { writeSync } from 'node:fs'
import type { Logger } from '../src/index.ts'
import type { CliContext } from './context.ts'
import { codeOf, wrongValue } from './exit.ts'
import { printable } from './output.ts'
import { redact } from './redis-url.ts'

/**
 * The log of commands that run for long: lines for a person where stderr is a terminal, JSON for a machine elsewhere. One
 * write a line, at once: several processes share stderr, and the last words of one that ends must not be lost.
 *
 * pino is loaded when a log is opened and not before: help must come at once.
 */

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const
const FORMATS = ['pretty', 'json'] as const
const LEVEL_VARIABLE = 'MILLRACE_LOG_LEVEL'

/** Plain data: a supervisor passes it on to its worker processes. */
export interface LogSettings {
  readonly level: (typeof LEVELS)[number]
  readonly format: (typeof FORMATS)[number]
}

export interface LogFlags {
  readonly logLevel?: LogSettings['level']
  readonly logFormat?: LogSettings['format']
}

export interface LogOptions extends LogSettings {
  /** Which process of ours is speaking. */
  readonly role: 'supervisor' | 'worker' | 'exporter'
  /** Told in every line, and on a terminal in none: who reads there has typed it. */
  readonly about?: object
  /** The URL of Redis, whose password is taken out wherever it appears. */
  readonly redis?: string
}

export interface Log {
  /** For the `logger` option of the library. */
  readonly logger: Logger
  /** A line in words. `fields` says the same for machines; on a terminal the words are enough. */
  say(message: string, fields?: object, level?: 'info' | 'warn' | 'error'): void
}

/** Adds `--log-level` and `--log-format` to a command. */
export function addLogFlags(command: Command): Command {
  return command
    .addOption(new Option('--log-level <level>', 'what is logged (default: info)').choices(LEVELS))
    .addOption(new Option('--log-format <how>', 'pretty, or JSON (default: pretty on a terminal)').choices(FORMATS))
}

/** What counts: the flags, then MILLRACE_LOG_LEVEL, then the defaults. @throws CliError on a level that there is not. */
export function logSettings({ env, stderr }: Pick<CliContext, 'env' | 'stderr'>, flags: LogFlags): LogSettings {
  const format = flags.logFormat ?? (stderr.isTTY ? 'pretty' : 'json')
  return { level: flags.logLevel ?? levelOf(env[LEVEL_VARIABLE]) ?? 'info', format }
}

function levelOf(text: string | undefined): LogSettings['level'] | undefined {
  if (text === undefined || text === '') return undefined
  const level = LEVELS.find((known) => known === text.toLowerCase())
  if (level === undefined) throw wrongValue(LEVEL_VARIABLE, `one of ${LEVELS.join(', ')}`, text)
  return level
}

/** Opens the log of this process on stderr. */
export async function openLog(
  { stderr }: Pick<CliContext, 'stderr'>,
  { level, format, role, about = {}, redis = '' }: LogOptions,
): Promise<Log> {
  const { pino } = await import('pino')
  const sink = { write: writeLine }
  const stream = format === 'json' ? sink : await prettyStream(stderr, sink, [...Object.keys(about), 'consumer'])
  const told = (text: string) => printable(redact(text, redis).slice(0, MOST_CHARACTERS))
  const asError = (error: unknown) => errorFields(error, (text) => redact(text, redis))
  const log = pino(
    {
      level,
      base: { pid: process.pid, role },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRETS, censor: '***' },
      serializers: { err: asError, error: asError },
    },
    stream,
  )
  const allOf = (fields: object) => {
    const entries = Object.entries<unknown>({ ...about, ...fields })
    return Object.fromEntries(entries.map(([name, value]) => [name, typeof value === 'string' ? told(value) : value]))
  }
  const at = (name: 'debug' | 'info' | 'warn' | 'error') => (fields: object, message: string) =>
    log[name](allOf(fields), told(message))
  return {
    logger: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') },
    say: (message, fields = {}, name = 'info') => at(name)(format === 'json' ? fields : {}, message),
  }
}

const STDERR = 2
/** A line may come from anybody; what is longer is told in part. */
const MOST_CHARACTERS = 2000
const MOST_STACK = 4000

/** Nothing of ours has such a field. If one ever comes here, or a handler's logger is given ours, it stays unread. */
const NAMES = ['password', 'passwd', 'secret', 'token', 'authorization', 'cookie', 'apiKey', 'redis', 'data', 'payload']
const SECRETS = [...NAMES, 'args', 'command.args'].flatMap((name) => [name, `*.${name}`])

/** Without what libraries hang on their errors, such as the command with its arguments. */
function errorFields(error: unknown, told: (text: string) => string): unknown {
  if (!(error instanceof Error)) return error
  const { name, message, stack } = error
  const code: unknown = (error as { code?: unknown }).code
  return {
    type: name,
    message: told(message.slice(0, MOST_CHARACTERS)),
    ...(typeof code === 'string' ? { code } : {}),
    stack: told(stack?.slice(0, MOST_STACK) ?? ''),
  }
}

/** How long a line waits for a reader that has fallen behind. */
const PATIENCE_MS = 2000
const pause = new Int32Array(new SharedArrayBuffer(4))
let isStuck = false

/**
 * A log that cannot be written must not end what it tells of, nor hold it for long: its disk may be full, its reader gone, or
 * so far behind that the pipe is. What there is no room for is lost, and after the first such line nobody waits any more
 * until there is room again.
 */
function writeLine(line: string): void {
  const untilMs = performance.now() + (isStuck ? 0 : PATIENCE_MS)
  let rest = Buffer.from(line)
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(STDERR, rest))
      isStuck = false
    } catch (error) {
      isStuck = codeOf(error) === 'EAGAIN' && performance.now() >= untilMs
      if (isStuck || codeOf(error) !== 'EAGAIN') return
      Atomics.wait(pause, 0, 0, 10)
    }
  }
}

interface Sink {
  write(line: string): unknown
}

async function prettyStream(stderr: NodeJS.WriteStream, sink: Sink, hidden: readonly string[]): Promise<Sink> {
  const { prettyPrinter } = await import('./pretty-log.ts')
  const pretty = prettyPrinter({
    // It asks NO_COLOR too; a pipe has no such method.
    colorize: stderr.isTTY && stderr.hasColors(),
    columns: () => (stderr.isTTY ? stderr.columns || 80 : Infinity),
    hidden,
  })
  return { write: (line) => sink.write(pretty(line)) }
}
