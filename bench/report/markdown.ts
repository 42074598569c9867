import type { Report } from './report.ts'
import { figuresTable, floorsTable, type Table } from './tables.ts'
import { aboutLines, remarks } from './text.ts'

/** The report as a piece of a document: the same tables, the machine and the versions. */
export function markdownOf(report: Report): string {
  const { floors } = report
  const parts = [
    bulletList(aboutLines(report)),
    markdownTable(figuresTable(report)),
    bulletList(report.groups.map(({ name, note }) => `${name}: ${note.replaceAll(' | ', '; ')}`)),
    ...(floors === undefined ? [] : [markdownTable(floorsTable(floors))]),
    bulletList(remarks(report)),
  ]
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`
}

/** In the shape that prettier gives a table, so that a document with it needs no formatting. */
function markdownTable({ columns, rows }: Table): string {
  const cells = [columns.map(({ title }) => title), ...rows].map((row) =>
    row.map((cell) => cell.replaceAll('|', '\\|')),
  )
  const widths = columns.map((_, at) => Math.max(3, ...cells.map((row) => (row[at] ?? '').length)))
  const lines = cells.map((row) => {
    const padded = columns.map(({ align }, at) => {
      const [cell, width] = [row[at] ?? '', widths[at] ?? 3]
      return align === 'right' ? cell.padStart(width) : cell.padEnd(width)
    })
    return `| ${padded.join(' | ')} |`
  })
  const rule = columns.map(({ align }, at) => {
    const width = widths[at] ?? 3
    return align === 'right' ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width)
  })
  lines.splice(1, 0, `| ${rule.join(' | ')} |`)
  return lines.join('\n')
}

function bulletList(lines: readonly string[]): string {
  return lines.map((line) => `- ${line}`).join('\n')
}
