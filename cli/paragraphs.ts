import { widthOf } from './width.ts'

/** Lines longer than this are hard to read, however wide the terminal. */
const MOST_COLUMNS = 100
/** What a file or a pipe gets. */
const COLUMNS = 80

/** How wide text is set for a stream. */
export function columnsOf({ columns }: { readonly columns?: number }): number {
  return Math.min(MOST_COLUMNS, columns || COLUMNS)
}

/**
 * Sets the paragraphs of a text anew, as wide as there is room for. Lines that begin with a space are left as they are:
 * tables, and commands to be copied. A word that is wider than a line stands alone on one.
 */
export function setParagraphs(text: string, columns: number): string {
  const lines: string[] = []
  let words: string[] = []
  const end = () => {
    if (words.length > 0) lines.push(...wrapped(words, columns))
    words = []
  }
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith(' ')) {
      end()
      lines.push(line)
    } else {
      words.push(...line.split(' '))
    }
  }
  end()
  return lines.join('\n')
}

/** A line of data in words: on a terminal over as many lines as it takes, the later ones indented; elsewhere one. */
export function foldedLine(
  stdout: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>,
  line: string,
  indent = '  ',
): string[] {
  if (!stdout.isTTY || widthOf(line) <= columnsOf(stdout)) return [line]
  const lead = /^ */.exec(line)?.[0] ?? ''
  const [first = '', ...others] = wrapped(line.slice(lead.length).split(' '), columnsOf(stdout) - lead.length, indent)
  return [`${lead}${first}`, ...others.map((other) => `${lead}${other}`)]
}

/** Lines of words, none wider than `columns`, the later ones indented. */
export function wrapped(words: readonly string[], columns: number, indent = ''): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of words) {
    const longer = line === '' ? word : `${line} ${word}`
    if (widthOf(longer) <= columns || line === '') {
      line = longer
    } else {
      lines.push(line)
      line = `${indent}${word}`
    }
  }
  return line === '' ? lines : [...lines, line]
}
