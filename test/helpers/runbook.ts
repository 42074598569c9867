/** What docs/runbook.md has to say, by alert, and the commands that it tells people to run. */

/** The text of each section that is headed by an alert. */
export function sections(runbook: string): Map<string, string> {
  const parts = runbook.split(/^#{2,3} (?=.)/m).slice(1)
  const found = parts.map((part): [string, string] => [part.split('\n', 1)[0] ?? '', part])
  return new Map(found.filter(([title]) => /^Millrace\w+$/.test(title)))
}

export interface CommandLine {
  readonly line: string
  /** Of the command: `dead list`. */
  readonly words: readonly string[]
  readonly options: readonly string[]
}

/** Every `millrace …` in code, in blocks and within lines. */
export function commandLines(text: string): CommandLine[] {
  const blocks = [...text.matchAll(/^```sh\n(.*?)^```/gms)].flatMap(([, block = '']) => block.split('\n'))
  const inline = [...text.replace(/^```.*?^```/gms, '').matchAll(/`([^`\n]+)`/g)].map(([, code = '']) => code)
  return [...blocks, ...inline].filter((line) => /^millrace [a-z]/.test(line)).map(commandOf)
}

const NESTED = ['dead', 'groups', 'scheduled', 'replays', 'check']

function commandOf(line: string): CommandLine {
  const said = line.replace(/ #.*$/, '').replace(/ \|.*$/, '')
  const [, first = '', second = ''] = said.split(' ')
  const words = NESTED.includes(first) && /^[a-z]+$/.test(second) ? [first, second] : [first]
  const options = [...said.replace(/'[^']*'/g, '').matchAll(/ (--?[a-z][a-z-]*)/g)].map(([, option = '']) => option)
  return { line, words, options }
}
