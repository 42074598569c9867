import { SCHEMA_VERSION } from '../../cli/output.ts'
import { linesOf, type Report } from './report.ts'

/** Everything, for machines: each round's figures, and what was made of them. */
export function jsonOf(report: Report): string {
  const { groups, floors, ...rest } = report
  const document = {
    schemaVersion: SCHEMA_VERSION,
    ...rest,
    groups: groups.map(({ name, note, measures }) => ({ name, note, measures: measures.map(({ name }) => name) })),
    lines: linesOf(report),
    floors: floors?.map((floor) => ({ ...floor, value: floor.value ?? null })) ?? null,
  }
  return `${JSON.stringify(document, null, 2)}\n`
}
