/** The rules of the source tree, as functions from sources to what breaks them; `path` is relative to the root. */
import { posix } from 'node:path'
import ts from 'typescript'

/** Texts by path. */
export type Sources = ReadonlyMap<string, string>

/** Every relative import, export-from and import() of each file; type imports count. */
export function importGraph(sources: Sources): Map<string, string[]> {
  const graph = new Map<string, string[]>()
  for (const [path, text] of sources) {
    const targets = specifiersOf(path, text).filter((specifier) => specifier.startsWith('.'))
    graph.set(
      path,
      targets.map((specifier) => posix.join(posix.dirname(path), specifier)),
    )
  }
  return graph
}

/** Each cycle once, as the files on the way round. */
export function cyclesIn(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const cycles = new Set<string>()
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path)
    if (start !== -1) cycles.add([...trail.slice(start), path].join(' → '))
    if (start !== -1 || done.has(path)) return
    for (const target of graph.get(path) ?? []) visit(target, [...trail, path])
    done.add(path)
  }
  for (const path of graph.keys()) visit(path, [])
  return [...cycles]
}

const BELOW_REDIS = /^src\/(errors|clock|logger|options|events|job|retry)\.ts$/

/** Imports against the direction: errors and types → redis → parts → worker and inspector → index → cli. */
export function wrongWayImports(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const edges = [...graph].flatMap(([from, targets]) => targets.map((to) => ({ from, to })))
  return edges
    .filter(({ from, to }) => {
      if (!to.startsWith('src/') && !to.startsWith('cli/')) return to !== 'package.json'
      if (from.startsWith('cli/')) return to.startsWith('src/') && to !== 'src/index.ts'
      if (from.startsWith('src/redis/')) return !to.startsWith('src/redis/') && !BELOW_REDIS.test(to)
      return !to.startsWith('src/') || to === 'src/index.ts'
    })
    .map(({ from, to }) => `${from} imports ${to}`)
}

/** Commands whose names nothing else has; the others count when called on something named like a client. */
const COMMAND = new RegExp(
  `^(${[
    'x(ack|add|autoclaim|claim|del|group|info|len|pending|range|read|readgroup|revrange|setid|trim)[a-z]*',
    'z(add|card|count|diff|incrby|inter|mpop|mscore|pop|rand|range|rank|rem|rev|scan|score|union)[a-z]*',
    'h(del|exists|expire|get|incrby|keys|len|mget|mset|rand|scan|set|strlen|vals)[a-z]*',
    's(add|card|diffstore|interstore|ismember|members|mismember|pop|randmember|rem|scan|unionstore)',
    'b?[lr](len|move|pop|popLpush|push|range|rem|trim)x?',
    'eval(sha)?(_ro|Buffer)?|fcall|p?expire(at|time)?|p?ttl|(set|pset)(ex|nx)|(incr|decr)(by)?',
    'flush(all|db)|mget|mset|msetnx|dbsize|bgsave|bgrewriteaof|sendCommand',
  ].join('|')})$`,
)
const CLIENT = /^#?(client|redis|pipeline|multi)$/i
const LIFETIME = /^(on|once|off|removeListener|removeAllListeners|connect|disconnect|quit|duplicate)$/

/** Calls of Redis commands outside of src/redis/. */
export function strayCommands(sources: Sources): string[] {
  return findings(sources, (node) => {
    if (!ts.isCallExpression(node) || !ts.isPropertyAccessExpression(node.expression)) return undefined
    const { expression: target, name } = node.expression
    const argument = node.arguments[0]
    const isCall = name.text === 'call' && argument !== undefined && ts.isStringLiteralLike(argument)
    const isOnClient = CLIENT.test(lastName(target)) && !LIFETIME.test(name.text)
    return COMMAND.test(name.text) || isCall || isOnClient ? `.${name.text}(` : undefined
  }).filter((finding) => !finding.startsWith('src/redis/'))
}

/** Not `job:cancelled`, which is an event. */
const KEY_PARTS =
  /millrace:streams|:(group|producer|unique|tally|replay):|(?<!\bjob):(settings|scheduled|cron|cancelled|replays|redelivery|workers)(?![a-z-])/

/** Imports of the client library outside of src/redis/. */
export function strayClients(sources: Sources): string[] {
  return [...sources]
    .filter(([path, text]) => !path.startsWith('src/redis/') && specifiersOf(path, text).includes('ioredis'))
    .map(([path]) => path)
}

/** Parts of key names in the strings of files other than src/redis/keys.ts. */
export function strayKeyNames(sources: Sources): string[] {
  return findings(sources, (node) => {
    const isText = ts.isStringLiteralLike(node) || ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node)
    return isText ? KEY_PARTS.exec(node.text)?.[0] : undefined
  }).filter((finding) => !finding.startsWith('src/redis/keys.ts:'))
}

function specifiersOf(path: string, text: string): string[] {
  const specifiers: string[] = []
  walk(parse(path, text), (node) => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) {
      specifiers.push((node.moduleSpecifier as ts.StringLiteral).text)
    }
    if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      specifiers.push((node.argument.literal as ts.StringLiteral).text)
    }
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments
      if (argument !== undefined && ts.isStringLiteralLike(argument)) specifiers.push(argument.text)
    }
  })
  return specifiers
}

/** `path:line what` for every node of which `look` says what is wrong. */
function findings(sources: Sources, look: (node: ts.Node) => string | undefined): string[] {
  return [...sources].flatMap(([path, text]) => {
    const file = parse(path, text)
    const found: string[] = []
    walk(file, (node) => {
      const what = look(node)
      const line = file.getLineAndCharacterOfPosition(node.getStart(file)).line + 1
      if (what !== undefined) found.push(`${path}:${line} ${what}`)
    })
    return found
  })
}

function lastName(expression: ts.Expression): string {
  if (ts.isIdentifier(expression)) return expression.text
  return ts.isPropertyAccessExpression(expression) ? expression.name.text : ''
}

function parse(path: string, text: string): ts.SourceFile {
  return ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true)
}

function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node)
  ts.forEachChild(node, (child) => walk(child, visit))
}
