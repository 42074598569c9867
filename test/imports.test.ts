import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  cyclesIn,
  importGraph,
  type Sources,
  strayClients,
  strayCommands,
  strayKeyNames,
  wrongWayImports,
} from './helpers/source-rules.ts'

const root = join(import.meta.dirname, '..')
const tree: Sources = new Map([...(await sourcesIn('src')), ...(await sourcesIn('cli'))])

async function sourcesIn(folder: string): Promise<[string, string][]> {
  const names = await readdir(join(root, folder), { recursive: true })
  const paths = names.filter((name) => name.endsWith('.ts')).map((name) => `${folder}/${name}`)
  return Promise.all(
    paths.map(async (path): Promise<[string, string]> => [path, await readFile(join(root, path), 'utf8')]),
  )
}

/** One file in an otherwise empty tree. */
const only = (path: string, text: string): Sources => new Map([[path, text]])

describe('the source tree', () => {
  test('is found', () => {
    expect([...tree.keys()]).toEqual(expect.arrayContaining(['src/index.ts', 'cli/redis-server.ts']))
    expect([...importGraph(tree).values()].flat()).not.toEqual([])
  })

  test('imports only files that exist', () => {
    const targets = [...importGraph(tree).values()].flat()
    expect(targets.filter((target) => !tree.has(target) && !target.endsWith('package.json'))).toEqual([])
  })

  test('has no import cycles, type imports counted', () => {
    expect(cyclesIn(importGraph(tree))).toEqual([])
  })

  test('imports one way: src/redis from the pure files only, cli from src/index.ts only, src never from cli', () => {
    expect(wrongWayImports(importGraph(tree))).toEqual([])
  })

  test('speaks to Redis under src/redis/ and nowhere else', () => {
    expect(strayCommands(tree)).toEqual([])
    expect(strayClients(tree)).toEqual([])
  })

  test('names keys in src/redis/keys.ts and nowhere else', () => {
    expect(strayKeyNames(tree)).toEqual([])
  })
})

describe('each rule finds what breaks it', () => {
  test('cycles, through type imports, re-exports and import() too', () => {
    const graph = importGraph(
      new Map([
        ['src/a.ts', "import type { B } from './redis/b.ts'"],
        ['src/redis/b.ts', "export { c } from '../c.ts'"],
        ['src/c.ts', "const a = await import('./a.ts')"],
        ['src/d.ts', "import { a } from './a.ts'\nlet type: import('./d.ts').D"],
      ]),
    )
    expect(cyclesIn(graph)).toEqual(['src/a.ts → src/redis/b.ts → src/c.ts → src/a.ts', 'src/d.ts → src/d.ts'])
  })

  test.each([
    ['src/redis/stream.ts', '../producer.ts'],
    ['cli/main.ts', '../src/errors.ts'],
    ['cli/commands/stats.ts', '../../src/redis/keys.ts'],
    ['src/worker.ts', '../cli/output.ts'],
    ['src/worker.ts', './index.ts'],
    ['src/worker.ts', '../test/helpers/redis.ts'],
  ])('the wrong way: %s from %s', (path, specifier) => {
    expect(wrongWayImports(importGraph(only(path, `import { x } from '${specifier}'`)))).toHaveLength(1)
  })

  test.each([
    ['src/redis/scripts/claim.ts', '../../errors.ts'],
    ['src/redis/stream.ts', './scripts/claim.ts'],
    ['src/worker.ts', './redis/stream.ts'],
    ['cli/commands/stats.ts', '../../src/index.ts'],
    ['cli/commands/stats.ts', '../output.ts'],
  ])('the right way: %s from %s', (path, specifier) => {
    expect(wrongWayImports(importGraph(only(path, `import { x } from '${specifier}'`)))).toEqual([])
  })

  test.each([
    "await anything.xadd('orders', '*')",
    'this.#connection.client.info()',
    'redis.del(key)',
    "connection.call('XINFO', 'STREAM')",
    'pipeline.zadd(key, 1, id).hset(key, id, 1)',
    'client.evalsha(sha, 1)',
  ])('a stray command: %s', (text) => {
    expect(strayCommands(only('src/worker.ts', text))).not.toEqual([])
    expect(strayCommands(only('src/redis/stream.ts', text))).toEqual([])
  })

  test.each([
    'map.set(key, 1)',
    'pattern.exec(text)',
    'logger.info(fields)',
    'get.call(this)',
    "client.on('error', f)",
  ])('no command: %s', (text) => expect(strayCommands(only('src/worker.ts', text))).toEqual([]))

  test('a stray client, as a type too', () => {
    expect(strayClients(only('src/worker.ts', "import type { Redis } from 'ioredis'"))).toEqual(['src/worker.ts'])
  })

  test.each([
    '`${stream}:group:${group}:dead`',
    "'{orders}:scheduled'",
    '`{x}:producer:${id}`',
    "'millrace:streams'",
    "'{jobs}:cancelled'",
  ])('a stray key name: %s', (text) => {
    expect(strayKeyNames(only('src/redis/stream.ts', `const key = ${text}`))).toHaveLength(1)
    expect(strayKeyNames(only('src/redis/keys.ts', `const key = ${text}`))).toEqual([])
    expect(strayKeyNames(only('src/redis/stream.ts', `// in a comment: ${text}`))).toEqual([])
  })

  test('no key name: the event job:cancelled', () => {
    expect(strayKeyNames(only('src/worker.ts', "const name = 'job:cancelled'"))).toEqual([])
  })
})
