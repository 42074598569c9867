import * as sdk from '@grafana/grafana-foundation-sdk/dashboard'
import { DATASOURCE, panelOf } from './panel.ts'
import { numbered, uidOf, type DashboardSpec, type PanelSpec } from './spec.ts'
import { variables } from './variables.ts'

/** What Grafana 10 and later read; a later one brings it up to date by itself. */
const SCHEMA_VERSION = 39
const COLUMNS = 24
const HEIGHTS: Readonly<Record<PanelSpec['kind'], number>> = { stat: 4, timeseries: 8, heatmap: 8, table: 8 }

/** One dashboard as Grafana takes it. The same spec gives the same text. */
export function dashboardJson(spec: DashboardSpec, all: readonly DashboardSpec[]): string {
  const builder = new sdk.DashboardBuilder(spec.title)
    .uid(uidOf(spec.key))
    .description(spec.description)
    .tags(['millrace'])
    .readonly()
    .refresh('10s')
    .time({ from: 'now-1h', to: 'now' })
    .tooltip(sdk.DashboardCursorSync.Crosshair)
    .variables(variables())
    .link(
      new sdk.DashboardLinkBuilder('millrace')
        .type(sdk.DashboardLinkType.Dashboards)
        .tags(['millrace'])
        .includeVars(true)
        .keepTime(true),
    )
  place(builder, spec, all)
  const built = { ...builder.build(), schemaVersion: SCHEMA_VERSION }
  // Where a link stands in a menu is something that Grafana 10 does not know.
  return `${JSON.stringify(built, (key, value: unknown) => (key === 'placement' && value === 'inControlsMenu' ? undefined : value), 2)}\n`
}

/** Panels go from left to right, and to the next line where the row is full. */
function place(builder: sdk.DashboardBuilder, spec: DashboardSpec, all: readonly DashboardSpec[]): void {
  let [x, y, lineHeight] = [0, 0, 0]
  for (const { id, row, panel } of numbered(spec)) {
    if (panel === undefined) {
      y += lineHeight
      builder.withRow(
        new sdk.RowBuilder(row.title).id(id).gridPos({ x: 0, y, w: COLUMNS, h: 1 }).datasource(DATASOURCE),
      )
      ;[x, y, lineHeight] = [0, y + 1, 0]
      continue
    }
    const height = panel.height ?? HEIGHTS[panel.kind]
    if (x + panel.width > COLUMNS) [x, y, lineHeight] = [0, y + lineHeight, 0]
    builder.withPanel(panelOf(panel, { id, grid: { x, y, w: panel.width, h: height }, all }))
    x += panel.width
    lineHeight = Math.max(lineHeight, height)
  }
}
