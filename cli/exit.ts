/**
 * What the exit code of a command says. Scripts and supervisors branch on it, so a code never changes its meaning.
 */
export const EXIT = {
  ok: 0,
  failed: 1,
  /** The command line, an option or a name is not what it must be; nothing was done. */
  usage: 2,
  /** Redis cannot be reached, or refuses us. */
  redis: 3,
  notFound: 4,
  /** A part of it was done before it failed. */
  partly: 5,
  /** Ended by Ctrl-C. */
  interrupted: 130,
} as const

/** An error of the command line itself: its message is all that the user sees. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly exitCode: number

  constructor(message: string, exitCode: number, options?: ErrorOptions) {
    super(message, options)
    this.exitCode = exitCode
  }
}

/** The command line is not what it must be; nothing was done. */
export function usageError(message: string): CliError {
  return new CliError(message, EXIT.usage)
}

/** A value is not what its option wants: `wanted` is as in "a size such as 512MiB". */
export function wrongValue(option: string, wanted: string, text: string): CliError {
  const got = JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text)
  return usageError(`expected \`${option}\` to be ${wanted}, got ${got}`)
}

/** By `code` and not by class: a command that fails before it needs the library must not load it for its exit. */
const BY_CODE: Readonly<Record<string, number>> = {
  ERR_OPTION: EXIT.usage,
  ERR_NAME: EXIT.usage,
  ERR_PAYLOAD: EXIT.usage,
  ERR_INVALID_DATA: EXIT.usage,
  ERR_SCHEMA: EXIT.usage,
  ERR_HANDLERS: EXIT.usage,
  ERR_UNIQUE_GROUP: EXIT.usage,
  ERR_REDIS_UNREACHABLE: EXIT.redis,
  ERR_REDIS_REFUSED: EXIT.redis,
  // A publish whose time is up had no answer from Redis in that time, or none but refusals.
  ERR_PUBLISH_TIMEOUT: EXIT.redis,
  ERR_PUBLISH_REFUSED: EXIT.redis,
  ERR_STREAM_FULL: EXIT.redis,
  ERR_MEMORY_FULL: EXIT.redis,
  ERR_UNKNOWN_GROUP: EXIT.notFound,
  ERR_NOT_FOUND: EXIT.notFound,
  // What was asked for is no longer there.
  ERR_HISTORY: EXIT.notFound,
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof CliError) return error.exitCode
  return BY_CODE[codeOf(error) ?? ''] ?? EXIT.failed
}

/** Whether the message of an error was written for the user. What else is thrown is a fault of ours. */
export function isExpected(error: unknown): boolean {
  return error instanceof CliError || codeOf(error)?.startsWith('ERR_') === true
}

export function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined
  return typeof code === 'string' ? code : undefined
}
