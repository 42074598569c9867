import { messageOf, OptionError } from './errors.ts'

/** What millrace writes its messages to: pino's shape, so a pino logger fits as it is. Fields never hold payloads. */
export interface Logger {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

const LEVELS = ['debug', 'info', 'warn', 'error'] as const
/** Of a message and of a field. Some texts come from anywhere: what a handler throws may be megabytes long. */
const MOST_CHARACTERS = 1000
/** Of a list in a field. */
const MOST_ITEMS = 20

const silent: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** Warnings and errors on stderr, one line each: what a process without a logger of its own still has to say. */
const toStderr: Logger = {
  debug: () => {},
  info: () => {},
  warn: (fields, message) => writeLine('warn', fields, message),
  error: (fields, message) => writeLine('error', fields, message),
}

/**
 * `undefined` is the logger to stderr, `false` is silence. A logger that throws is contained: it never changes an outcome.
 * What it is given is on one line each, of bounded length, with nothing in it that would drive a terminal.
 */
export function resolveLogger(given: Logger | false | undefined): Logger {
  if (given === false) return silent
  const target = given === undefined ? toStderr : given
  for (const level of LEVELS) {
    if (typeof (target as Partial<Logger> | null)?.[level] !== 'function') {
      throw new OptionError(`expected \`logger\` to have a method ${level}, as pino has, or to be false`)
    }
  }
  return eachLevel((level) => contained((fields, message) => target[level](tidied(fields), bounded(message))))
}

/** The same logger, whose lines all carry these fields. What a call brings itself counts before them. */
export function withFields(logger: Logger, bound: object): Logger {
  return eachLevel((level) => (fields, message) => logger[level]({ ...bound, ...fields }, message))
}

type Write = (fields: object, message: string) => void

function eachLevel(write: (level: (typeof LEVELS)[number]) => Write): Logger {
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') }
}

function contained(write: Write): Write {
  return (fields, message) => {
    try {
      write(fields, message)
    } catch (error) {
      say(`millrace: the logger failed (${bounded(messageOf(error))}); it had to say: ${bounded(message)}`)
    }
  }
}

function tidied(fields: object): object {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, tidy(value)]))
}

function tidy(value: unknown): unknown {
  if (typeof value === 'string') return bounded(value)
  return Array.isArray(value) ? value.slice(0, MOST_ITEMS).map(tidy) : value
}

/** Cut first: half a character is then taken out as what no terminal can show. */
function bounded(text: string): string {
  const cut = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS - 1)}…` : text
  return cut.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/gu, ' ')
}

function writeLine(level: string, fields: object, message: string): void {
  const known = Object.entries(fields).filter(([, value]) => value !== undefined)
  const told = known.map(([name, value]) => `${name}=${textOf(value)}`)
  say(`millrace[${process.pid}] ${level}: ${[message, ...told].join(' ')}`)
}

let hasFailed = false

/** A full disk or a reader that is gone must not end the process, as an error of stderr does that nobody listens to. */
function say(line: string): void {
  process.stderr.write(`${line}\n`, (error) => {
    if (!error || hasFailed) return
    hasFailed = true
    process.stderr.on('error', () => {})
  })
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}
