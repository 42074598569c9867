import { OptionError } from './errors.ts'

/** What millrace writes its messages to: pino's shape, so a pino logger fits as it is. Fields never hold payloads. */
export interface Logger {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

const silent: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** Warnings and errors on stderr, one line each: what a process without a logger of its own still has to say. */
const toStderr: Logger = {
  debug: () => {},
  info: () => {},
  warn: (fields, message) => writeLine('warn', fields, message),
  error: (fields, message) => writeLine('error', fields, message),
}

/** `undefined` is the logger to stderr, `false` is silence. A logger that throws is contained: it never changes an outcome. */
export function resolveLogger(given: Logger | false | undefined): Logger {
  if (given === false) return silent
  if (given === undefined) return toStderr
  for (const level of ['debug', 'info', 'warn', 'error'] as const) {
    if (typeof (given as Partial<Logger> | null)?.[level] !== 'function') {
      throw new OptionError(`expected \`logger\` to have a method ${level}, as pino has, or to be false`)
    }
  }
  return {
    debug: contained((fields, message) => given.debug(fields, message)),
    info: contained((fields, message) => given.info(fields, message)),
    warn: contained((fields, message) => given.warn(fields, message)),
    error: contained((fields, message) => given.error(fields, message)),
  }
}

type Write = (fields: object, message: string) => void

function contained(write: Write): Write {
  return (fields, message) => {
    try {
      write(fields, message)
    } catch (error) {
      process.stderr.write(`millrace: the logger failed (${String(error)}); it had to say: ${message}\n`)
    }
  }
}

function writeLine(level: string, fields: object, message: string): void {
  const told = Object.entries(fields).map(([name, value]) => `${name}=${oneLine(value)}`)
  process.stderr.write(`millrace[${process.pid}] ${level}: ${[message, ...told].join(' ')}\n`)
}

function oneLine(value: unknown): string {
  const text = value instanceof Error ? value.message : typeof value === 'string' ? value : JSON.stringify(value)
  return String(text).replace(/\p{Cc}+/gu, ' ')
}
