import type { Logger } from '../../src/index.ts'

/** What a logger was given. */
export interface Logged {
  readonly level: string
  readonly message: string
  readonly fields: Record<string, unknown>
}

/** A logger that keeps what it is given. */
export function keepingLogger(): { logger: Logger; lines: Logged[]; messages: () => Set<string> } {
  const lines: Logged[] = []
  const at = (level: string) => (fields: object, message: string) =>
    void lines.push({ level, message, fields: { ...fields } })
  const logger = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
  return { logger, lines, messages: () => new Set(lines.map(({ message }) => message)) }
}
