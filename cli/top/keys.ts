/** What a terminal sends for a key, as its name. Pure. */

const ESC = '\x1b'

/** What comes behind an Esc. */
const NAMED: readonly (readonly [RegExp, string])[] = [
  [/^(?:\[|O)(?:1;\d)?A/, 'up'],
  [/^(?:\[|O)(?:1;\d)?B/, 'down'],
  [/^(?:\[|O)(?:1;\d)?C/, 'right'],
  [/^(?:\[|O)(?:1;\d)?D/, 'left'],
  [/^(?:\[H|OH|\[1~|\[7~)/, 'home'],
  [/^(?:\[F|OF|\[4~|\[8~)/, 'end'],
  [/^\[5~/, 'pageup'],
  [/^\[6~/, 'pagedown'],
  // Any other sequence is a key that means nothing here, and no Esc.
  [/^\[[0-9;?<]*[ -/]*[@-~]/, 'other'],
  [/^O[@-~]/, 'other'],
]

const SINGLE: Readonly<Record<string, string>> = {
  '\r': 'enter',
  '\n': 'enter',
  '\t': 'tab',
  '\x1b': 'esc',
  '\x7f': 'backspace',
  '\b': 'backspace',
  '\x03': 'ctrl-c',
  '\x06': 'pagedown',
  '\x02': 'pageup',
  '\x0c': 'ctrl-l',
}

/** The keys in what was read. `rest` may be the beginning of a sequence; if nothing comes behind it, it is that many keys. */
export function keysIn(text: string): { keys: string[]; rest: string } {
  const keys: string[] = []
  let left = text
  while (left !== '') {
    const behind = left.startsWith(ESC) ? left.slice(1) : undefined
    const found = behind === undefined ? undefined : NAMED.find(([pattern]) => pattern.test(behind))
    if (behind !== undefined && found !== undefined) {
      keys.push(found[1])
      left = behind.replace(found[0], '')
    } else if (behind !== undefined && /^(?:|O|\[[0-9;?<]*)$/.test(behind)) {
      return { keys, rest: left }
    } else {
      const [character = ''] = left
      keys.push(SINGLE[character] ?? character)
      left = left.slice(character.length)
    }
  }
  return { keys, rest: '' }
}

/** What is left when nothing came behind it: the Esc key, most often. */
export function keysOfRest(rest: string): string[] {
  return [...rest].map((character) => SINGLE[character] ?? character)
}
