import * as sdk from '@grafana/grafana-foundation-sdk/units'
import { parser } from '@prometheus-io/lezer-promql'
import {
  expressions,
  selectorsOf,
  shown,
  type Dashboard,
  type Panel,
  type Selector,
  type Variable,
} from './dashboard-model.ts'
import type { MetricFacts } from './metric-names.ts'

/**
 * What dashboard-linter of Grafana asks of a dashboard, under its names, and what we ask beyond. Each rule tells what is
 * wrong, in lines; none is as it should be. It is a tool in Go that not every machine has, hence here.
 */
export type Rule = (dashboard: Dashboard, world: World) => string[]

/** What is there outside of the dashboard. */
export interface World {
  readonly metrics: ReadonlyMap<string, MetricFacts>
  readonly recorded: ReadonlySet<string>
  /** Anchors of the runbook. */
  readonly sections: ReadonlySet<string>
  readonly dashboards: readonly Dashboard[]
}

const DATASOURCE = '${datasource}'
const UNITS = new Set<unknown>(Object.values(sdk))
/** Told by every exporter alike, of Redis; see grafana/src/build/expressions.ts. */
const OF_STREAMS = /^millrace_(group|stream|dead_letter|consumer|exporter)_|^millrace_redis_(unsafe|memory|clock|info)/
/** Whoever scrapes adds these. */
const TARGET_LABELS = ['job', 'instance']
/** Firing alerts are a series that Prometheus makes itself. */
const MADE_BY_PROMETHEUS = new Set(['ALERTS'])
const COUNTING = new Set(['rate', 'irate', 'increase'])

export const RULES: Readonly<Record<string, Rule>> = {
  'template-datasource': ({ templating }) =>
    templating.list.filter(
      ({ type, name, query }) => type === 'datasource' && name === 'datasource' && query === 'prometheus',
    ).length === 1
      ? []
      : ['expected one variable `datasource`, of Prometheus'],
  'template-job': (dashboard) => templated(dashboard, 'job'),
  'template-instance': (dashboard) => templated(dashboard, 'instance'),
  'template-stream': (dashboard) => templated(dashboard, 'stream'),
  'template-group': (dashboard) => templated(dashboard, 'group'),
  'template-label-promql': (dashboard, { metrics }) =>
    queried(dashboard).flatMap((variable) => {
      const [, series = '', label = ''] = /^label_values\((.*), (\w+)\)$/s.exec(queryOf(variable)) ?? []
      const [selector] = isPromql(series) ? selectorsOf(series) : []
      const known = metrics.get(selector?.metric ?? '')
      return known !== undefined && [...known.labels, ...TARGET_LABELS].includes(label)
        ? []
        : [`${variable.name}: ${queryOf(variable)} is no list of a label's values`]
    }),
  'template-on-time-change-reload': (dashboard) =>
    queried(dashboard)
      .filter(({ refresh }) => refresh !== 2)
      .map(({ name }) => `${name} is not read again when the time range changes`),
  'panel-datasource': (dashboard) =>
    shown(dashboard)
      .filter((panel) => [panel, ...(panel.targets ?? [])].some(({ datasource }) => datasource?.uid !== DATASOURCE))
      .map((panel) => `${named(panel)} has another data source than the one chosen`),
  'panel-title-description': (dashboard) =>
    shown(dashboard)
      .filter(({ title, description }) => (title ?? '') === '' || (description ?? '').length < 40)
      .map((panel) => `${named(panel)} has no title, or no description worth the name`),
  'panel-units': (dashboard) =>
    shown(dashboard).flatMap((panel) => {
      const { defaults, overrides } = panel.fieldConfig ?? { defaults: {}, overrides: [] }
      const more = overrides.flatMap(({ properties }) => properties.filter(({ id }) => id === 'unit'))
      const wrong = [defaults.unit, ...more.map(({ value }) => value)].filter((unit) => !UNITS.has(unit))
      return wrong.map((unit) => `${named(panel)} has ${String(unit)} for a unit`)
    }),
  'panel-no-targets': (dashboard) =>
    shown(dashboard)
      .filter(({ targets = [] }) => targets.length === 0 || targets.some(({ expr }) => expr.trim() === ''))
      .map((panel) => `${named(panel)} asks for nothing`),
  'panel-links': (dashboard) =>
    shown(dashboard)
      .filter(({ links = [] }) => links.length === 0)
      .map((panel) => `${named(panel)} leads nowhere`),
  'target-promql': (dashboard) =>
    expressions(dashboard)
      .filter(({ expr }) => !isPromql(expr))
      .map(({ panel, expr }) => `${named(panel)}: ${expr} is no PromQL`),
  'target-rate-interval': (dashboard) =>
    selectors(dashboard)
      .filter(({ selector: { range } }) => range !== undefined && range !== '$__rate_interval')
      .map(({ panel, selector }) => `${named(panel)}: ${selector.metric}[${selector.range}] is a range of its own`),
  'target-job': (dashboard, world) => chosenBy('job', dashboard, world),
  'target-instance': (dashboard, world) => chosenBy('instance', dashboard, world),
  'target-stream-plane': (dashboard, { metrics }) =>
    selectors(dashboard)
      .filter(({ selector }) => OF_STREAMS.test(selector.metric) && !isTakenOnce(selector, metrics))
      .map(({ panel, selector }) => `${named(panel)}: ${selector.metric} counts double if two exporters tell of it`),
  'target-stream': (dashboard, world) => chosenWhereLabelled('stream', dashboard, world),
  'target-group': (dashboard, world) => chosenWhereLabelled('group', dashboard, world),
  'target-counter-agg': (dashboard, { metrics }) =>
    selectors(dashboard)
      .filter(({ selector }) => isCounting(selector.metric, metrics) !== COUNTING.has(selector.inside[0] ?? ''))
      .map(({ panel, selector }) => `${named(panel)}: ${selector.metric} under ${selector.inside[0] ?? 'nothing'}`),
  'metrics-exist': (dashboard, { metrics, recorded }) =>
    selectors(dashboard)
      .filter(({ selector: { metric } }) => knownAs(metric, metrics) === undefined && !recorded.has(metric))
      .filter(({ selector: { metric } }) => !MADE_BY_PROMETHEUS.has(metric))
      .map(({ panel, selector }) => `${named(panel)}: there is no ${selector.metric}`),
  'labels-exist': (dashboard, { metrics }) =>
    selectors(dashboard).flatMap(({ panel, selector }) => {
      const known = knownAs(selector.metric, metrics)
      if (known === undefined) return []
      const has = new Set([...known.labels, ...TARGET_LABELS, 'le'])
      const asked = [...selector.matchers.map(({ label }) => label), ...selector.by]
      return asked
        .filter((label) => !has.has(label))
        .map((label) => `${named(panel)}: ${selector.metric} has no ${label}`)
    }),
  uneditable: ({ editable }) => (editable ? ['what somebody edits is lost with the next version'] : []),
  'links-lead-somewhere': (dashboard, world) =>
    shown(dashboard).flatMap((panel) =>
      urlsOf(panel)
        .filter((url) => !leads(url, world))
        .map((url) => `${named(panel)}: ${url}`),
    ),
  'links-encoded': (dashboard) =>
    shown(dashboard).flatMap((panel) =>
      urlsOf(panel)
        .filter((url) => /\$\{__(?:field\.labels|data\.fields)\.\w+\}/.test(url))
        .map((url) => `${named(panel)}: a name with & or # would break ${url}`),
    ),
  'ids-unique': ({ panels }) =>
    panels.filter(({ id }, at) => panels.findIndex((other) => other.id === id) !== at).map((panel) => named(panel)),
  'grid-overlap': ({ panels }) =>
    panels.flatMap((panel, at) => {
      const outside = panel.gridPos.x + panel.gridPos.w > 24 ? [`${named(panel)} stands out`] : []
      const over = panels.slice(at + 1).filter((other) => overlap(panel.gridPos, other.gridPos))
      return [...outside, ...over.map((other) => `${named(panel)} lies over ${named(other)}`)]
    }),
}

const named = (panel: Panel): string => `panel ${panel.id} "${panel.title ?? ''}"`

function selectors(dashboard: Dashboard): { panel: Panel; selector: Selector }[] {
  return expressions(dashboard).flatMap(({ panel, expr }) => selectorsOf(expr).map((selector) => ({ panel, selector })))
}

function queried({ templating }: Dashboard): Variable[] {
  return templating.list.filter(({ type }) => type === 'query')
}

function queryOf({ query }: Variable): string {
  return typeof query === 'object' ? query.query : (query ?? '')
}

function templated(dashboard: Dashboard, name: string): string[] {
  const variable = queried(dashboard).find((each) => each.name === name)
  if (variable === undefined) return [`there is no variable ${name}`]
  const { datasource, multi, includeAll, allValue } = variable
  const isRight = datasource?.uid === DATASOURCE && multi === true && includeAll === true && allValue === '.+'
  return isRight ? [] : [`${name} is not of the data source chosen, or not several, or All of it is not .+`]
}

function isPromql(text: string): boolean {
  let isValid = text !== ''
  parser.parse(text.replaceAll('$__rate_interval', '5m')).iterate({
    enter: ({ type }) => {
      if (type.isError) isValid = false
    },
  })
  return isValid
}

/** A histogram is asked for by its parts. */
export function knownAs(name: string, metrics: ReadonlyMap<string, MetricFacts>): MetricFacts | undefined {
  const whole = metrics.get(name)
  if (whole !== undefined) return whole.type === 'histogram' ? undefined : whole
  const histogram = metrics.get(name.replace(/_(bucket|sum|count)$/, ''))
  return histogram?.type === 'histogram' ? histogram : undefined
}

function isCounting(name: string, metrics: ReadonlyMap<string, MetricFacts>): boolean {
  const known = knownAs(name, metrics)
  return known?.type === 'counter' || known?.type === 'histogram'
}

/** The process plane must be chosen by job and instance. What Redis tells must not be: see grafana/src/build/expressions.ts. */
function chosenBy(label: 'job' | 'instance', dashboard: Dashboard, { metrics }: World): string[] {
  return selectors(dashboard).flatMap(({ panel, selector }) => {
    if (knownAs(selector.metric, metrics) === undefined) return []
    const isChosen = selector.matchers.some(
      (one) => one.label === label && one.op === '=~' && one.value === `$${label}`,
    )
    if (isChosen !== OF_STREAMS.test(selector.metric)) return []
    return [`${named(panel)}: ${selector.metric} ${isChosen ? 'is' : 'is not'} chosen by ${label}`]
  })
}

function chosenWhereLabelled(label: 'stream' | 'group', dashboard: Dashboard, { metrics }: World): string[] {
  return selectors(dashboard)
    .filter(({ selector }) => knownAs(selector.metric, metrics)?.labels.includes(label) === true)
    .filter(({ selector }) => !selector.matchers.some((one) => one.label === label && one.value === `$${label}`))
    .map(({ panel, selector }) => `${named(panel)}: ${selector.metric} is not chosen by ${label}`)
}

/** Under `max by` first of all; or it is a count of the exporter itself, which is added up. */
function isTakenOnce({ metric, inside }: Selector, metrics: ReadonlyMap<string, MetricFacts>): boolean {
  const operators = inside.filter((name) => !COUNTING.has(name) && name !== 'deriv')
  const isOwnCount = metric.startsWith('millrace_exporter_') && metrics.get(metric)?.type === 'counter'
  return operators[0] === 'max' || isOwnCount
}

function urlsOf(panel: Panel): string[] {
  const { defaults, overrides } = panel.fieldConfig ?? { defaults: {}, overrides: [] }
  const ofCells = overrides.flatMap(({ properties }) => properties.filter(({ id }) => id === 'links'))
  const inCells = ofCells.flatMap(({ value }) => value as { url: string }[])
  return [...(panel.links ?? []), ...(defaults.links ?? []), ...inCells].map(({ url }) => url)
}

/** A dashboard, one of its panels, or a section of the runbook. */
function leads(url: string, { dashboards, sections }: World): boolean {
  const [, section] = /^\$\{docs\}\/runbook\.md(?:#(.*))?$/.exec(url) ?? []
  if (url.startsWith('${docs}/runbook.md')) return section === undefined || sections.has(section)
  const [, uid, id] = /^\/d\/([\w-]+)\?.*?(?:&viewPanel=(\d+))?$/.exec(url) ?? []
  const target = dashboards.find((each) => each.uid === uid)
  return target !== undefined && (id === undefined || shown(target).some((panel) => panel.id === Number(id)))
}

function overlap(a: Panel['gridPos'], b: Panel['gridPos']): boolean {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
}
