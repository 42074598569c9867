import type { Command } from 'commander'
import { printable } from './output.ts'

/**
 * A command line to be run next, as it can be copied: on the same Redis, where one was named. A URL that may hold a password
 * is left to be filled in.
 */
export function commandLine(command: Command, ...words: readonly string[]): string {
  const { redis } = command.optsWithGlobals<{ redis?: string }>()
  const place = redis === undefined ? [] : ['--redis', /[@?]/.test(redis) ? '<url>' : redis]
  return shellCommand(['millrace', ...words, ...place])
}

/** A command line that a shell takes apart into these words again. */
export function shellCommand(words: readonly string[]): string {
  return words.map(quoted).join(' ')
}

function quoted(word: string): string {
  // What a terminal would obey, and what cannot be seen, in the way that bash, zsh and ksh write it.
  if (printable(word) !== word) return `$'${[...word].map(escaped).join('')}'`
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

function escaped(character: string): string {
  if (character === "'" || character === '\\') return `\\${character}`
  if (printable(character) === character) return character
  return [...Buffer.from(character)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')
}
