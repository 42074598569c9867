import { OptionError } from '../errors.ts'
import { shown } from '../options.ts'

/** What a handler may say of its job, and how much of it. Pure. */

const MOST_PROGRESS_BYTES = 1024
const MOST_LINE_BYTES = 1024
const MOST_CHECKPOINT_BYTES = 64 * 1024
/** Begins with what cannot be passed over: one that begins with any white space tries again at each blank of a long row of them. */
const LINE_END = /[\r\n]\s*/g

/** As JSON; undefined for what has none, or too much of it: progress is not worth a job. */
export function progressText(value: unknown): string | undefined {
  const json = jsonOf(value)
  return json === undefined || Buffer.byteLength(json) > MOST_PROGRESS_BYTES ? undefined : json
}

/** On one line, and cut to its length. */
export function lineText(line: unknown, atMs: number): string {
  const text = (typeof line === 'string' ? line : shown(line)).replace(LINE_END, ' ')
  const cut = Buffer.byteLength(text) > MOST_LINE_BYTES ? `${cutTo(text, MOST_LINE_BYTES - 3)}…` : text
  return `${Math.round(atMs)} ${cut}`
}

/** @throws OptionError */
export function checkpointText(state: unknown): string {
  const json = jsonOf(state)
  if (json === undefined) throw new OptionError(`expected a checkpoint that has JSON, got ${shown(state)}`)
  const bytes = Buffer.byteLength(json)
  if (bytes <= MOST_CHECKPOINT_BYTES) return json
  const most = `${MOST_CHECKPOINT_BYTES} bytes of JSON`
  throw new OptionError(
    `expected a checkpoint of at most ${most}, got ${bytes}; store large state elsewhere and keep where it is`,
  )
}

function jsonOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value)
  } catch {
    return undefined
  }
}

/** Half a character becomes another one; it is left out. */
function cutTo(text: string, bytes: number): string {
  return new TextDecoder().decode(Buffer.from(text).subarray(0, bytes), { stream: true })
}
