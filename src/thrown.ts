import { textOf } from './errors.ts'

/** What was thrown by code that had a payload in its hands: of which class it is, and not what it says, which may quote that. */
export function thrownText(error: unknown): string {
  const name = textOf(() => (error instanceof Error ? error.name : undefined))
  if (name === 'undefined') return `a value of type ${error === null ? 'null' : typeof error}`
  return /^[A-Za-z_$][\w$]{0,99}$/.test(name) ? name : 'an error'
}
