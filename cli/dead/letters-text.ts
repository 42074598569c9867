import type { DeadErrorGroup, DeadField, DeadLetter, DeadLetterDetails } from '../../src/index.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { countText, factLines, instantText, momentText, printable } from '../output.ts'

/** How dead letters are written for people and as JSON. */

/** What of an error fits beside the rest of a row; `show` has all of it. */
const ERROR_WIDTH = 100

const LETTER_COLUMNS: readonly FittingColumn[] = [
  { title: 'died', spare: 1 },
  { title: 'id' },
  { title: 'job', least: 12 },
  { title: 'reason', least: 8 },
  { title: 'attempts', align: 'right', spare: 2 },
  { title: 'error', least: 30 },
]

export function letterLines(stdout: NodeJS.WriteStream, letters: readonly DeadLetter[], indent = ''): string[] {
  const rows = letters.map((letter) => [
    momentText(letter.deadMs),
    letter.id === '' ? `(${letter.deadId})` : letter.id,
    letter.job ?? '-',
    letter.reason,
    attemptsText(letter),
    clipped(errorText(letter)),
  ])
  return fittingTable(stdout, LETTER_COLUMNS, rows, indent)
}

const GROUP_COLUMNS: readonly FittingColumn[] = [
  { title: 'letters', align: 'right' },
  { title: 'reason', least: 8 },
  { title: 'first', spare: 2 },
  { title: 'last', spare: 1 },
  { title: 'example' },
  { title: 'error', least: 30 },
]

export function errorGroupLines(stdout: NodeJS.WriteStream, groups: readonly DeadErrorGroup[]): string[] {
  return fittingTable(
    stdout,
    GROUP_COLUMNS,
    groups.map((group) => [
      countText(group.count),
      group.reason,
      momentText(group.firstMs),
      momentText(group.lastMs),
      group.exampleId,
      clipped(errorText(group)),
    ]),
  )
}

export function detailLines(letter: DeadLetterDetails): string[] {
  const rows: [string, string | null][] = [
    ['id', letter.id],
    ['job', letter.job],
    ['reason', letter.reason],
    ['error', errorText(letter)],
    ['attempts', attemptsText(letter)],
    ['deliveries', String(letter.deliveries ?? '-')],
    ['published', timeText(letter.publishedMs)],
    ['first failed', timeText(letter.firstFailedMs)],
    ['died', instantText(letter.deadMs)],
    ['worker', letter.worker],
    ['origin', `${letter.origin} (${letter.source})`],
    ['dead letter', letter.deadId],
  ]
  const fields = (letter.fields ?? []).map(({ name, value }) => `  ${valueText(name)}: ${valueText(value)}`)
  return [
    ...factLines(rows.map(([name, value]) => [name, value === null || value === '' ? '-' : value])),
    ...(letter.stack === ''
      ? []
      : ['stack', ...letter.stack.split('\n').map((line) => `  ${printable(line).trimEnd()}`)]),
    ...(letter.fields === null ? ['fields        (not what a worker writes)'] : ['fields', ...fields]),
  ]
}

/** Bytes that are no text as base64, under a name that says so. */
export function detailDocument({ fields, payload, ...letter }: DeadLetterDetails): object {
  return {
    ...letter,
    ...(Buffer.isBuffer(payload) ? { payload: null, payloadBase64: payload.toString('base64') } : { payload }),
    fields: fields?.map(fieldDocument) ?? null,
  }
}

function fieldDocument({ name, value }: DeadField): object {
  return {
    ...(Buffer.isBuffer(name) ? { nameBase64: name.toString('base64') } : { name }),
    ...(Buffer.isBuffer(value) ? { valueBase64: value.toString('base64') } : { value }),
  }
}

function valueText(value: string | Buffer): string {
  return Buffer.isBuffer(value) ? `(not text, base64) ${value.toString('base64')}` : printable(value)
}

/** Those of the last round; with those before it, where it was redriven. */
function attemptsText({ attempts, totalAttempts }: DeadLetter): string {
  if (attempts === null) return '-'
  return totalAttempts === null || totalAttempts === attempts ? String(attempts) : `${attempts} of ${totalAttempts}`
}

function errorText({ error, message }: { error: string; message: string }): string {
  return error === '' ? message : `${error}: ${message}`
}

function timeText(ms: number | null): string | null {
  return ms === null ? null : instantText(ms)
}

function clipped(text: string): string {
  return text.length > ERROR_WIDTH ? `${text.slice(0, ERROR_WIDTH - 1)}…` : text
}
