/** The files and commands of a guide: a page of docs/ whose code blocks are all meant to be executed, in their order. */

export interface Guide {
  /** Titles of its sections, `## …`. */
  readonly sections: readonly string[]
  readonly files: readonly GuideFile[]
  readonly commands: readonly GuideCommands[]
}

export interface GuideFile {
  readonly name: string
  readonly text: string
}

export interface GuideCommands {
  readonly section: string
  /** Where they begin on the page. */
  readonly line: number
  readonly text: string
}

/** What the commands since the check before are said to print, in this order, each on a line of its own. */
export interface Check {
  readonly section: string
  readonly line: number
  readonly prints: readonly RegExp[]
}

/** @throws Error for a block that is neither commands (```sh) nor a file (```ts or ```js that begins with `// <its name>`). */
export function readGuide(markdown: string): Guide {
  const { sections, blocks } = blocksOf(markdown)
  const files: GuideFile[] = []
  const commands: GuideCommands[] = []
  for (const { section, line, language, text } of blocks) {
    const [, name] = /^\/\/ ([\w-]+\.(?:ts|mjs|js))\n/.exec(text) ?? []
    if (language === 'sh') commands.push({ section, line, text })
    else if (name !== undefined && /^(ts|js)$/.test(language)) files.push({ name, text })
    else throw new Error(`line ${line}: a block of ${language || 'no language'} that is no commands and no named file`)
  }
  return { sections, files, commands }
}

/** One script of all commands. Where lines `# prints: …` follow a command it prints the mark: there a check is due. */
export function scriptOf({ commands }: Guide, mark: string): { script: string; checks: Check[] } {
  const script: string[] = []
  const checks: Check[] = []
  for (const { section, line: first, text } of commands) {
    let prints: RegExp[] = []
    for (const [at, line] of text.split('\n').entries()) {
      const [, said] = /^# prints: (.+)$/.exec(line) ?? []
      if (said !== undefined) {
        prints.push(patternOf(said))
        continue
      }
      if (prints.length > 0) {
        script.push(`printf '\\n${mark}\\n'`)
        checks.push({ section, line: first + at, prints })
        prints = []
      }
      script.push(line)
    }
  }
  return { script: `${script.join('\n')}\n`, checks }
}

/** The first that the output does not have in its turn; undefined if it has all of them. */
export function missingIn(output: string, { prints }: Check): RegExp | undefined {
  const lines = output.split('\n')
  let from = 0
  return prints.find((pattern) => {
    const at = lines.findIndex((line, index) => index >= from && pattern.test(line))
    from = at + 1
    return at === -1
  })
}

function blocksOf(markdown: string) {
  const sections: string[] = []
  const blocks: { section: string; line: number; language: string; text: string }[] = []
  let open: { line: number; language: string; lines: string[] } | undefined
  for (const [index, line] of markdown.split('\n').entries()) {
    const [fence, language = ''] = /^```(.*)$/.exec(line) ?? []
    if (open !== undefined && fence !== undefined) {
      const { lines, ...about } = open
      blocks.push({ section: sections.at(-1) ?? 'introduction', ...about, text: `${lines.join('\n')}\n` })
      open = undefined
    } else if (open !== undefined) {
      open.lines.push(line)
    } else if (fence !== undefined) {
      open = { line: index + 2, language, lines: [] }
    } else if (line.startsWith('## ')) {
      sections.push(line.slice(3))
    }
  }
  return { sections, blocks }
}

/** `…` is anything, spaces around it too; others are as many as there are, for columns of a table are as wide as their widest cell. */
function patternOf(said: string): RegExp {
  const parts = said.trim().split(/ *… */)
  return new RegExp(parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/ +/g, ' +')).join('.*'))
}
