/**
 * A place in the jobs of a file: behind a line of it. As the position of a feed it lives in Redis beside the jobs, so it holds
 * all that is needed to go on from there and to see that the file is still the same up to there.
 */
export interface BulkPlace {
  /** Jobs before it. */
  readonly jobs: number
  /** The line that it is behind; 0 is the beginning. */
  readonly line: number
  /** Bytes before it, of the text: of a packed file those that come out. */
  readonly bytes: number
  /** CRC-32 of these bytes. */
  readonly crc: number
}

export const BEGINNING: BulkPlace = { jobs: 0, line: 0, bytes: 0, crc: 0 }

export function positionOf({ jobs, line, bytes, crc }: BulkPlace): string {
  return `line ${line} jobs ${jobs} bytes ${bytes} crc32 ${crc}`
}

/** Undefined for what was not written by `positionOf`: somebody else's feed. */
export function placeOf(position: string): BulkPlace | undefined {
  if (position === '') return BEGINNING
  const numbers = /^line (\d{1,15}) jobs (\d{1,15}) bytes (\d{1,15}) crc32 (\d{1,10})$/.exec(position)?.slice(1)
  if (numbers === undefined) return undefined
  const [line = 0, jobs = 0, bytes = 0, crc = 0] = numbers.map(Number)
  return { jobs, line, bytes, crc }
}
