/** How many columns a text takes on a terminal, and as much of it as there is room for. Of texts that `printable` gave. */

/** East Asian wide and fullwidth characters, and emoji: two columns each. */
const WIDE =
  /[\u1100-\u115F\u231A\u231B\u23E9-\u23EC\u2614\u2615\u26A1\u2705\u274C\u2728\u2B50\u2E80-\u303E\u3041-\uA4CF\uA960-\uA97C\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE6F\uFF01-\uFF60\uFFE0-\uFFE6\u{1F000}-\u{1FAFF}\u{20000}-\u{3FFFD}]/u
/** What is drawn onto the character before it. */
const NO_WIDTH = /[\p{Mn}\p{Me}]/u
const PLAIN = /^[\x20-\x7e]*$/

export function widthOf(text: string): number {
  if (PLAIN.test(text)) return text.length
  let width = 0
  for (const character of text) width += columnsOf(character)
  return width
}

/** At most `columns` wide, its end marked where something was left out; no character is cut in half. */
export function clipped(text: string, columns: number): string {
  if (text.length <= columns && PLAIN.test(text)) return text
  if (columns <= 0) return ''
  let [kept, width] = ['', 0]
  for (const character of text) {
    const next = width + columnsOf(character)
    if (next > columns) return `${shortened(kept, columns - 1)}…`
    kept += character
    width = next
  }
  return kept
}

/** Exactly so many columns: clipped, or filled with blanks. */
export function fitted(text: string, columns: number, align: 'left' | 'right' = 'left'): string {
  return padded(clipped(text, columns), columns, align)
}

/** At least so many columns. */
export function padded(text: string, columns: number, align: 'left' | 'right' = 'left'): string {
  const blanks = ' '.repeat(Math.max(0, columns - widthOf(text)))
  return align === 'left' ? text + blanks : blanks + text
}

function shortened(text: string, columns: number): string {
  let [kept, width] = ['', 0]
  for (const character of text) {
    width += columnsOf(character)
    if (width > columns) return kept
    kept += character
  }
  return kept
}

function columnsOf(character: string): number {
  if (NO_WIDTH.test(character)) return 0
  return WIDE.test(character) ? 2 : 1
}
