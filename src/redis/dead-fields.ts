import { isUtf8 } from 'node:buffer'

/** Reading one dead letter from its bytes, raw fields and all: pure. */

/** A field as it was published: text, or the bytes where they are none. */
export interface DeadField {
  readonly name: string | Buffer
  readonly value: string | Buffer
}

export interface LetterRead {
  readonly provenance: ReadonlyMap<string, string>
  /** Undefined where the letter is not what a worker writes. */
  readonly fields: readonly DeadField[] | undefined
}

/** Provenance is read up to `dead-fields`, since a raw field may have any name; see the scripts. */
export function readLetter(flat: readonly Buffer[]): LetterRead {
  const provenance = new Map<string, string>()
  for (let at = 0; at + 1 < flat.length; at += 2) {
    const [name, value] = [textAt(flat, at), textAt(flat, at + 1)]
    if (name === 'dead-fields') return { provenance, fields: rawFields(flat.slice(at + 2), Number(value)) }
    if (!provenance.has(name)) provenance.set(name, value)
  }
  return { provenance, fields: undefined }
}

function rawFields(rest: readonly Buffer[], count: number): DeadField[] | undefined {
  const packed = rest.length !== 2 * count && rest.length === 2 && textAt(rest, 0) === 'dead-packed'
  const raw = packed ? unpackTexts(rest[1] ?? Buffer.alloc(0)) : rest
  if (raw?.length !== 2 * count || count < 1) return undefined
  return Array.from({ length: count }, (_, at) => ({
    name: textOrBytes(raw[2 * at] as Buffer),
    value: textOrBytes(raw[2 * at + 1] as Buffer),
  }))
}

/**
 * A MessagePack array of strings, which is what the script packs fields into; undefined for anything else, cut off or with
 * something behind it.
 */
export function unpackTexts(packed: Buffer): Buffer[] | undefined {
  const head = lengthAt(packed, 0, ARRAYS)
  if (head === undefined) return undefined
  const texts: Buffer[] = []
  let at = head.next
  for (let n = 0; n < head.length; n++) {
    const text = lengthAt(packed, at, STRINGS)
    if (text === undefined || text.next + text.length > packed.length) return undefined
    texts.push(packed.subarray(text.next, text.next + text.length))
    at = text.next + text.length
  }
  return at === packed.length ? texts : undefined
}

/** First bytes of a kind: short ones carry their length in the byte itself, the others in 1, 2 or 4 bytes behind it. */
interface Kind {
  readonly short: readonly [from: number, to: number]
  readonly long: Readonly<Record<number, 1 | 2 | 4>>
}

const ARRAYS: Kind = { short: [0x90, 0x9f], long: { 0xdc: 2, 0xdd: 4 } }
const STRINGS: Kind = { short: [0xa0, 0xbf], long: { 0xd9: 1, 0xda: 2, 0xdb: 4, 0xc4: 1, 0xc5: 2, 0xc6: 4 } }

function lengthAt(packed: Buffer, at: number, { short, long }: Kind): { length: number; next: number } | undefined {
  const first = packed[at]
  if (first === undefined) return undefined
  if (first >= short[0] && first <= short[1]) return { length: first - short[0], next: at + 1 }
  const bytes = long[first]
  if (bytes === undefined || at + 1 + bytes > packed.length) return undefined
  return { length: packed.readUIntBE(at + 1, bytes), next: at + 1 + bytes }
}

function textOrBytes(bytes: Buffer): string | Buffer {
  return isUtf8(bytes) ? bytes.toString() : bytes
}

function textAt(flat: readonly Buffer[], at: number): string {
  return flat[at]?.toString() ?? ''
}
