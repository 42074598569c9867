/** Lines of at most `width` characters, each moved in by `indent`. A word that is longer stands alone, uncut. */
export function wrapped(text: string, { width, indent }: { width: number; indent: string }): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ').filter((part) => part !== '')) {
    if (line !== '' && indent.length + line.length + 1 + word.length > width) {
      lines.push(`${indent}${line}`)
      line = word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  return line === '' ? lines : [...lines, `${indent}${line}`]
}
