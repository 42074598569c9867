import { wrapped } from './paragraphs.ts'
import { widthOf } from './width.ts'

/**
 * A message as lines of a terminal: at most so wide, broken between words. A command to be run next has a line of its own,
 * uncut, whatever its length: it is there to be copied.
 */
export function messageLines(message: string, columns: number): string[] {
  if (message.startsWith(' ') || widthOf(message) <= columns) return [message]
  const [, told, command] = /^(.*?:) (millrace .*)$/.exec(message) ?? []
  if (told === undefined || command === undefined) return wrapped(message.split(' '), columns)
  return [...wrapped(told.split(' '), columns), `  ${command}`]
}
