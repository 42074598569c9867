import { open, rename } from 'node:fs/promises'
import type { SpillBook } from './spill-book.ts'
import { endText, headerText, lineOf, STATE_OFFSET, stateText, type SpillLine } from './spill-format.ts'
import { newHeader, newSequenceText, syncFolder, writeDurably } from './spill-writing.ts'

/** What became of the jobs of a spill file that is done. Those of its batches that were awaited do not count. */
export interface SpillCounts {
  published: number
  /** Redis does not know whether it has them. */
  unknown: number
  /** Redis will not have them. */
  refused: number
  /** Lines that cannot be read. */
  broken: number
  /** Lines that were to be written, and were not: the writer was killed. */
  missing: number
}

/** Where a line is that could not be published; without a stream if it cannot be read. */
interface LeftLine {
  readonly offset: number
  readonly length: number
  readonly stream: string | undefined
}

/** The part of a file that a line belongs to. */
interface Part {
  readonly line: Extract<SpillLine, { kind: 'batch' | 'sequence' }>
  /** Lines of it that are still to come. */
  left: number
  index: number
}

/** What a file that is done holds. */
export async function countSpill(book: SpillBook): Promise<{ counts: SpillCounts; left: readonly LeftLine[] }> {
  const counts: SpillCounts = { published: 0, unknown: 0, refused: 0, broken: 0, missing: 0 }
  const left: LeftLine[] = []
  let part: Part | undefined
  for await (const { offset, bytes } of book.rawLines()) {
    const line = lineOf(bytes)
    if (line.kind === 'batch' || line.kind === 'sequence' || line.kind === 'end') {
      counts.missing += part?.left ?? 0
      part = line.kind === 'end' ? undefined : { line, left: sizeOf(line), index: 0 }
      continue
    }
    const own = part !== undefined && part.left > 0 ? part : undefined
    const fate = fateOf(line, own)
    if (own !== undefined) {
      own.left -= 1
      own.index += 1
    }
    // Nothing is lost with the last line, and what is left of it needs no keeping.
    if (fate === 'nothing' || (own === undefined && '{"end":true,'.startsWith(bytes.toString('latin1', 0, 12))))
      continue
    counts[fate] += 1
    const stream = line.kind === 'job' && fate !== 'broken' ? line.stream : undefined
    if (fate !== 'published') left.push({ offset, length: bytes.length, stream })
  }
  counts.missing += part?.left ?? 0
  return { counts, left }
}

function sizeOf(line: Part['line']): number {
  return line.kind === 'batch' ? line.batch.items : line.sequence.jobs
}

function fateOf(line: SpillLine, part: Part | undefined): 'published' | 'unknown' | 'refused' | 'broken' | 'nothing' {
  // A batch that is done in whole was in Redis already, whatever the file can still say of it.
  const isDone = part?.line.kind === 'batch' && part.line.state === 'done'
  if (line.kind !== 'job' || part === undefined) return isDone ? 'nothing' : 'broken'
  if (line.stream !== streamOf(part.line)) return 'broken'
  if (line.item.ref === undefined && part.line.kind === 'batch') return 'nothing'
  if (line.state === 'refused' || line.state === 'unknown') return line.state
  if (part.line.state !== 'unknown') return 'published'
  return part.line.kind === 'sequence' && part.index < part.line.sequence.from ? 'published' : 'unknown'
}

function streamOf(line: Part['line']): string {
  return line.kind === 'batch' ? line.batch.stream : line.sequence.stream
}

/**
 * Leaves what could not be published in a file of its own, and gives its name. It is a spill file too: whoever decides that
 * its jobs are better published twice than never moves it to where the next producer looks for one.
 */
export async function leaveRest(book: SpillBook, left: readonly LeftLine[]): Promise<string> {
  // The same at every try, so that a crash before the spill file is removed leaves one such file and not two.
  const file = `${book.file}.left-${book.id.slice(0, 8)}`
  const draft = `${file}.tmp`
  await writeDurably(await open(draft, 'w', 0o600), draft, leftLines(book, left))
  await rename(draft, file)
  await syncFolder(file)
  return file
}

async function* leftLines(book: SpillBook, left: readonly LeftLine[]): AsyncGenerator<string | Buffer> {
  const byStream = new Map<string, LeftLine[]>()
  for (const line of left) {
    if (line.stream === undefined) continue
    const own = byStream.get(line.stream)
    if (own === undefined) byStream.set(line.stream, [line])
    else own.push(line)
  }
  yield headerText(newHeader([...byStream.keys()]))
  for (const [stream, lines] of byStream) {
    yield newSequenceText(stream, lines.length)
    for (const line of lines) yield asTodo(await book.bytesAt(line.offset, line.length))
  }
  for (const { stream, offset, length } of left) if (stream === undefined) yield book.bytesAt(offset, length)
  yield endText(left.length)
}

function asTodo(bytes: Buffer): Buffer {
  bytes.write(stateText('todo'), STATE_OFFSET)
  return bytes
}
