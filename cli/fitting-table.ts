import { tableLines, type Column } from './output.ts'
import { clipped } from './width.ts'

/** Tables that a terminal does not break. */

export interface FittingColumn extends Column {
  /** Where there is no room for all columns, this one is left out, the highest number first. @default never */
  readonly spare?: number
}

/** As `tableLines`; on a terminal that is too narrow without the spare columns that have no room, and no line too long. */
export function fittingTable(
  stdout: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>,
  columns: readonly FittingColumn[],
  rows: readonly (readonly string[])[],
): string[] {
  const lines = tableLines(columns, rows)
  const room = stdout.columns || 80
  if (!stdout.isTTY || lines.every((line) => line.length <= room)) return lines
  const spare = Math.max(...columns.map((column) => column.spare ?? 0))
  if (spare === 0) return lines.map((line) => clipped(line, room))
  const isKept = columns.map((column) => column.spare !== spare)
  const pick = <Cell>(cells: readonly Cell[]) => cells.filter((_, at) => isKept[at])
  // A row that is shorter ends with a remark, which is not of the column that it stands in.
  const kept = rows.map((row) => (row.length < columns.length ? row : pick(row)))
  return fittingTable(stdout, pick(columns), kept)
}
