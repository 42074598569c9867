import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import ts from 'typescript'

/** A call of a logger in the source: its level and its message, with … for what is put in when it is logged. */
export interface LogCall {
  readonly file: string
  readonly level: string
  readonly message: string
}

const LEVELS = new Set(['debug', 'info', 'warn', 'error'])

/** Every call of a logger under a folder. A message that is no literal is told by the expression that makes it. */
export async function logCalls(folder: string): Promise<LogCall[]> {
  const names = await readdir(folder, { recursive: true })
  const files = names.filter((name) => name.endsWith('.ts')).sort()
  const calls = await Promise.all(
    files.map(async (file) => logCallsIn(file, await readFile(join(folder, file), 'utf8'))),
  )
  return calls.flat()
}

export function logCallsIn(file: string, text: string): LogCall[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const found: LogCall[] = []
  const visit = (node: ts.Node): void => {
    ts.forEachChild(node, visit)
    if (!ts.isCallExpression(node) || node.arguments.length !== 2) return
    const level = levelOf(node.expression)
    if (level === undefined) return
    found.push({ file, level, message: messageOf(node.arguments[1] as ts.Expression) })
  }
  visit(source)
  return found
}

/** `logger.warn`, `this.#deps.logger.warn`, `logger?.warn`, `logger[level]`. */
function levelOf(called: ts.Expression): string | undefined {
  if (ts.isPropertyAccessExpression(called) && /logger$/i.test(called.expression.getText())) {
    return LEVELS.has(called.name.text) ? called.name.text : undefined
  }
  if (ts.isElementAccessExpression(called) && /logger$/i.test(called.expression.getText())) return 'warn or error'
  return undefined
}

function messageOf(expression: ts.Expression): string {
  if (ts.isStringLiteralLike(expression)) return expression.text
  if (ts.isTemplateExpression(expression)) {
    return [expression.head.text, ...expression.templateSpans.map(({ literal }) => literal.text)].join('…')
  }
  if (ts.isBinaryExpression(expression)) return messageOf(expression.left) + messageOf(expression.right)
  return `(${expression.getText()})`
}
