import * as common from '@grafana/grafana-foundation-sdk/common'
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard'
import { PanelBuilder as HeatmapBuilder } from '@grafana/grafana-foundation-sdk/heatmap'
import { DataqueryBuilder, PromQueryFormat } from '@grafana/grafana-foundation-sdk/prometheus'
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat'
import { PanelBuilder as TableBuilder } from '@grafana/grafana-foundation-sdk/table'
import { PanelBuilder as TimeseriesBuilder } from '@grafana/grafana-foundation-sdk/timeseries'
import { clickOf, linkOf, type Link } from './links.ts'
import type { DashboardSpec, PanelSpec, Query } from './spec.ts'

/** The one data source, as chosen above the dashboard. */
export const DATASOURCE = { type: 'prometheus', uid: '${datasource}' } as const
const THRESHOLD = 'threshold'

/** Prometheus sorts labels by name; a reader begins with these. */
const FIRST = { alertname: 0, severity: 1, alertstate: 2, stream: 3, group: 4, software: 5, version: 6 }

type Builder = TimeseriesBuilder | StatBuilder | TableBuilder | HeatmapBuilder

/** Where a panel stands, and what its links may lead to. */
export interface Place {
  readonly id: number
  readonly grid: dashboard.GridPos
  readonly all: readonly DashboardSpec[]
}

export function panelOf(spec: PanelSpec, { id, grid, all }: Place): Builder {
  const builder = shapes[spec.kind](spec)
    .id(id)
    .title(spec.title)
    .description(spec.description)
    .unit(spec.unit)
    .gridPos(grid)
    .datasource(DATASOURCE)
    .targets(spec.queries.map((query, at) => target(spec, query, at)))
    .thresholds(colours(spec.colours ?? []))
    .links(spec.links.map((next) => link(linkOf(next, all))))
  if (spec.words !== undefined) builder.mappings([words(spec.words)])
  const click = spec.click ?? (spec.queries.some(({ legend }) => legend.includes('{{group}}')) ? 'stream' : undefined)
  if (click !== undefined && spec.kind !== 'table') builder.dataLinks([link(clickOf(click, 'series'))])
  return builder
}

const shapes: Readonly<Record<PanelSpec['kind'], (spec: PanelSpec) => Builder>> = {
  timeseries(spec) {
    const builder = new TimeseriesBuilder()
      .lineWidth(1)
      .fillOpacity(spec.stacked === true ? 40 : 8)
      .showPoints(common.VisibilityMode.Never)
      .axisSoftMin(0)
      .tooltip(
        new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending),
      )
      .legend(
        new common.VizLegendOptionsBuilder()
          .displayMode(common.LegendDisplayMode.List)
          .placement(common.LegendPlacement.Bottom)
          .showLegend(true),
      )
    if (spec.stacked === true) builder.stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal))
    for (const query of spec.queries.filter(({ isThreshold }) => isThreshold)) {
      builder.overrideByName(query.legend, [
        { id: 'color', value: { mode: 'fixed', fixedColor: 'red' } },
        { id: 'custom.lineStyle', value: { fill: 'dash', dash: [8, 8] } },
        { id: 'custom.fillOpacity', value: 0 },
        { id: 'custom.stacking', value: { mode: 'none' } },
      ])
    }
    return builder
  },
  stat(spec) {
    const builder = new StatBuilder()
      .graphMode(common.BigValueGraphMode.None)
      .colorMode(common.BigValueColorMode.Background)
      .noValue('no data')
      .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']).values(false))
    // Grafana takes the value of that query for the step at which the colour changes: one place for thresholds.
    const at = spec.queries.findIndex(({ isThreshold }) => isThreshold)
    return at < 0 ? builder : builder.withTransformation(thresholdFromQuery(at))
  },
  table(spec) {
    const builder = new TableBuilder()
      .withTransformation({ id: 'merge', options: {} })
      .withTransformation({ id: 'organize', options: columnTitles(spec) })
      .cellHeight(common.TableCellHeight.Sm)
    for (const [title, unit] of Object.entries(spec.columns ?? {})) {
      builder.overrideByName(title, [{ id: 'unit', value: unit }])
    }
    if (spec.worstFirst !== undefined) {
      builder.sortBy([new common.TableSortByFieldStateBuilder().displayName(spec.worstFirst).desc(true)])
    }
    if (spec.click !== undefined) {
      builder.overrideByRegexp('stream|group', [{ id: 'links', value: [clickOf(spec.click, 'row')] }])
    }
    return builder
  },
  heatmap(spec) {
    return new HeatmapBuilder()
      .calculate(false)
      .yAxis({ build: () => ({ unit: spec.unit, axisPlacement: common.AxisPlacement.Left }) })
      .cellGap(1)
  },
}

function target({ kind }: PanelSpec, { expr, legend }: Query, at: number): DataqueryBuilder {
  const builder = new DataqueryBuilder().refId(refId(at)).expr(expr).legendFormat(legend).datasource(DATASOURCE)
  if (kind === 'table') return builder.instant().format(PromQueryFormat.Table)
  if (kind === 'stat') return builder.instant().format(PromQueryFormat.TimeSeries)
  return builder.range().format(kind === 'heatmap' ? PromQueryFormat.Heatmap : PromQueryFormat.TimeSeries)
}

function thresholdFromQuery(at: number): dashboard.DataTransformerConfig {
  const mapping = { fieldName: THRESHOLD, handlerKey: 'threshold1', handlerArguments: { threshold: { color: 'red' } } }
  const applyTo = { id: 'byFrameRefID', options: refId(0) }
  return { id: 'configFromData', options: { configRefId: refId(at), applyTo, mappings: [mapping] } }
}

/** What Grafana calls the value of each query is of no use to a reader. */
function columnTitles({ queries }: PanelSpec): object {
  const values = queries.map(({ legend }, at) => [queries.length === 1 ? 'Value' : `Value #${refId(at)}`, legend])
  return { excludeByName: { Time: true }, indexByName: FIRST, renameByName: Object.fromEntries(values) as object }
}

function refId(at: number): string {
  return String.fromCharCode('A'.charCodeAt(0) + at)
}

function link({ title, url }: Link): dashboard.DashboardLinkBuilder {
  return new dashboard.DashboardLinkBuilder(title).url(url)
}

function colours(steps: readonly (readonly [number, string])[]): dashboard.ThresholdsConfigBuilder {
  const known = steps.map(([value, color]) => ({ value, color }))
  return new dashboard.ThresholdsConfigBuilder()
    .mode(dashboard.ThresholdsMode.Absolute)
    .steps([{ value: null, color: 'green' }, ...known])
}

function words(known: Readonly<Record<string, string>>): dashboard.ValueMapping {
  const options = Object.fromEntries(Object.entries(known).map(([value, text], index) => [value, { text, index }]))
  return { type: 'value', options } as dashboard.ValueMapping
}
