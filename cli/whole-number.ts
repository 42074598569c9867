import { usageError, wrongValue } from './exit.ts'

/** A positive whole number as an option gives it. @throws CliError that says what was expected. */
export function parseCount(option: string, text: string, { most }: { most: number }): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : 0
  if (value >= 1 && value <= most) return value
  const got = /^-?\d{1,20}(\.\d+)?$/.test(text) ? text : JSON.stringify(text.slice(0, 60))
  throw usageError(`expected \`${option}\` to be a positive integer up to ${most}, got ${got}`)
}

/** A port number as an option gives it; 0 leaves the choice to the system. @throws CliError that says what was expected. */
export function parsePort(option: string, text: string): number {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : NaN
  if (value <= 65_535) return value
  throw wrongValue(option, 'a port from 0 to 65535', text)
}
