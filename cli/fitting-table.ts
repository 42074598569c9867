import { printable, tableLines, type Column } from './output.ts'
import { clipped, widthOf } from './width.ts'

/** Tables that a terminal does not break. */

export interface FittingColumn extends Column {
  /** Where there is no room for all columns, this one is left out, the highest number first. @default never */
  readonly spare?: number
  /** Where there is no room, its cells are cut down to as little as this. @default never: ids are to be copied */
  readonly least?: number
}

type Rows = readonly (readonly string[])[]

/**
 * As `tableLines`; on a terminal that is too narrow without the spare columns that have no room, with long cells cut, and no
 * line too long.
 * @param indent what stands before every line.
 */
export function fittingTable(
  stdout: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>,
  columns: readonly FittingColumn[],
  rows: Rows,
  indent = '',
): string[] {
  const lines = tableLines(columns, rows).map((line) => `${indent}${line}`)
  const room = stdout.columns || 80
  if (!stdout.isTTY || lines.every((line) => widthOf(line) <= room)) return lines
  const widths = widthsOf(columns, rows)
  const least = widths.map((width, at) => Math.min(width, columns[at]?.least ?? width))
  const spare = Math.max(...columns.map((column) => column.spare ?? 0))
  if (spare > 0 && indent.length + sum(least) > room) {
    const isKept = columns.map((column) => column.spare !== spare)
    const pick = <Cell>(cells: readonly Cell[]) => cells.filter((_, at) => isKept[at])
    // A row that is shorter ends with a remark, which is not of the column that it stands in.
    const kept = rows.map((row) => (row.length < columns.length ? row : pick(row)))
    return fittingTable(stdout, pick(columns), kept, indent)
  }
  const shrunk = shrunkTo(widths, least, room - indent.length)
  const cut = rows.map((row) => row.map((cell, at) => cutCell(cell, isRemark(row, at, columns) ? room : shrunk[at])))
  return tableLines(columns, cut).map((line) => clipped(`${indent}${line}`, room))
}

function cutCell(cell: string, width = 0): string {
  return clipped(printable(cell), width)
}

function isRemark(row: readonly string[], at: number, columns: readonly FittingColumn[]): boolean {
  return row.length < columns.length && at === row.length - 1
}

function widthsOf(columns: readonly FittingColumn[], rows: Rows): number[] {
  return columns.map(({ title }, at) => {
    const cells = rows.filter((row) => !isRemark(row, at, columns)).map((row) => widthOf(printable(row[at] ?? '')))
    return Math.max(title.length, ...cells)
  })
}

/** The widest that may be cut gives way first, so that several long ones share what there is. */
function shrunkTo(widths: readonly number[], least: readonly number[], room: number): number[] {
  const shrunk = [...widths]
  for (let over = sum(shrunk) - room; over > 0; over -= 1) {
    const cuttable = shrunk.map((width, at) => (width > (least[at] ?? 0) ? width : 0))
    const most = Math.max(...cuttable)
    if (most === 0) break
    shrunk[cuttable.lastIndexOf(most)] = most - 1
  }
  return shrunk
}

const GAP = 2

function sum(widths: readonly number[]): number {
  return widths.reduce((total, width) => total + GAP + width, -GAP)
}
