import { OptionError } from '../errors.ts'
import { shown } from '../options.ts'

/**
 * Texts such as `stripe:{data.account}`, which tell the jobs of one limit apart. A template is taken to pieces once; for a
 * job it is a walk through its payload.
 */

/** What a key is made of. */
export interface KeySource {
  readonly name: string
  readonly stream: string
  readonly group: string
}

/** The key of a job, or why it has none: that names a path, never what was found there. */
export type KeyFound = { readonly key: string } | { readonly fault: string }

export type KeyOf = (data: unknown, job: KeySource) => KeyFound

type Piece = string | readonly string[]

/** @throws OptionError on anything that is no template. */
export function compileKey(option: string, template: string): KeyOf {
  const pieces = piecesOf(option, template)
  return (data, job) => {
    let key = ''
    for (const piece of pieces) {
      if (typeof piece === 'string') {
        key += piece
        continue
      }
      const text = textOf(piece[0] === 'data' ? found(data, piece) : fieldOf(job, piece[0]))
      if (text === undefined) {
        return {
          fault: `\`${option}\` needs \`${piece.join('.')}\` to be a text, a number or a boolean, and it is not`,
        }
      }
      key += text
    }
    return { key }
  }
}

function piecesOf(option: string, template: string): Piece[] {
  const refuse = (why: string) =>
    new OptionError(
      `expected \`${option}\` to be a text with {job}, {stream}, {group} or {data.<path>} in it, got ${shown(template)}: ${why}`,
    )
  if (template === '') throw refuse('it is empty')
  const pieces = template.split(/(\{[^{}]*\})/).filter((text) => text !== '')
  return pieces.map((text) => {
    if (!text.startsWith('{') || !text.endsWith('}')) {
      if (/[{}]/.test(text)) throw refuse('a brace has no other')
      return text
    }
    const path = text.slice(1, -1).split('.')
    const isField = path.length === 1 && ['job', 'stream', 'group'].includes(path[0] ?? '')
    const isData = path[0] === 'data' && path.every((step) => step !== '')
    if (!isField && !isData) throw refuse(`${text} is none of them`)
    return path
  })
}

function fieldOf(job: KeySource, field: string | undefined): string {
  if (field === 'job') return job.name
  return field === 'stream' ? job.stream : job.group
}

/** Own properties only: what a payload inherits is the same for all. */
function found(data: unknown, path: readonly string[]): unknown {
  let value = data
  for (const step of path.slice(1)) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined
    value = (value as Record<string, unknown>)[step]
  }
  return value
}

function textOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value === '' ? undefined : value
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined
}
