import { createHash } from 'node:crypto'
import { OptionError } from '../errors.ts'
import { compileKey, type KeyOf } from '../limits/key-template.ts'
import { oneOf, shown } from '../options.ts'
import { isOrderKey } from '../wire-extra.ts'

/** A path into the payload. */
export type OrderBy = `data.${string}`

/** What becomes of its turn while a job that failed waits for its next attempt. */
export type OnFailure = 'block' | 'skip'

/** What the jobs of one publish are in order by: one key for all, or where it is in each of them. */
export type OrderRule = { readonly key: string } | { readonly keyOf: KeyOf }

/** What a definition says of order. @throws OptionError */
export function checkOrder({ orderBy, onFailure }: { orderBy?: unknown; onFailure?: unknown }): {
  orderBy?: OrderBy
  onFailure?: OnFailure
} {
  oneOf('onFailure', onFailure, ['block', 'skip'])
  if (orderBy !== undefined) compiled(orderBy)
  return {
    ...(orderBy !== undefined && { orderBy: orderBy as OrderBy }),
    ...(onFailure !== undefined && { onFailure: onFailure as OnFailure }),
  }
}

/** Undefined in the common case. @throws OptionError */
export function orderRule(
  definition: { readonly orderBy?: OrderBy | undefined } | undefined,
  { key }: { readonly key?: string | undefined },
): OrderRule | undefined {
  if (key !== undefined) return { key: checkKey(key) }
  return definition?.orderBy === undefined ? undefined : { keyOf: compiled(definition.orderBy) }
}

/** The field by which a worker knows of it. @throws OptionError if the payload has no key. */
export function orderFields(rule: OrderRule, name: string, data: unknown): readonly string[] {
  if ('key' in rule) return ['key', rule.key]
  const found = rule.keyOf(data, { name, stream: '', group: '' })
  if ('fault' in found) throw new OptionError(`expected a key in the data of ${name}: ${found.fault}`)
  return ['key', fitting(found.key)]
}

/** A key may be made of what is nobody's business: it is never shown. */
function checkKey(key: unknown): string {
  const wanted = 'expected `key` to be 1 to 256 bytes of printable text'
  if (typeof key !== 'string') throw new OptionError(`${wanted}, got ${key === null ? 'null' : `a ${typeof key}`}`)
  if (!isOrderKey(key)) throw new OptionError(`${wanted}, got ${Buffer.byteLength(key)} bytes`)
  return key
}

/** What is found in a payload may be anything: what cannot be a key goes by its hash. */
function fitting(key: string): string {
  return isOrderKey(key) ? key : `sha256.${createHash('sha256').update(key).digest('base64url')}`
}

const COMPILED_MOST = 1000
const compiledPaths = new Map<string, KeyOf>()

function compiled(orderBy: unknown): KeyOf {
  const known = compiledPaths.get(orderBy as string)
  if (known !== undefined) return known
  if (typeof orderBy !== 'string' || !/^data(\.[^.{}]+)+$/.test(orderBy)) {
    throw new OptionError(`expected \`orderBy\` to be a path as data.account, got ${shown(orderBy)}`)
  }
  const keyOf = compileKey('orderBy', `{${orderBy}}`)
  if (compiledPaths.size >= COMPILED_MOST) compiledPaths.clear()
  compiledPaths.set(orderBy, keyOf)
  return keyOf
}
