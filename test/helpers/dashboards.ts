import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The expressions of the dashboards in grafana/dashboards. */

const FOLDER = join(import.meta.dirname, '../../grafana/dashboards')

export interface DashboardExpression {
  /** `dashboard / panel`. */
  readonly place: string
  readonly expr: string
}

export function dashboardExpressions(): DashboardExpression[] {
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith('.json'))
    .flatMap((name) => {
      const dashboard = JSON.parse(readFileSync(join(FOLDER, name), 'utf8')) as Panel
      return (dashboard.panels ?? []).flatMap((panel) => expressionsOf(panel, name.replace('.json', '')))
    })
}

interface Panel {
  readonly title?: string
  readonly targets?: readonly { readonly expr?: string }[]
  /** Of a row that is closed. */
  readonly panels?: readonly Panel[]
}

function expressionsOf(panel: Panel, dashboard: string): DashboardExpression[] {
  const own = (panel.targets ?? []).flatMap(({ expr }) =>
    expr === undefined ? [] : [{ place: `${dashboard} / ${panel.title ?? ''}`, expr }],
  )
  return [...own, ...(panel.panels ?? []).flatMap((each) => expressionsOf(each, dashboard))]
}

const TIMES: Readonly<Record<string, string>> = {
  ...{ __rate_interval: '1m', __interval: '15s', __range: '5m', __range_s: '300', __interval_ms: '15000' },
}
const CHOICES = ['job', 'instance', 'stream', 'group', 'job_name', 'role']

/** As Grafana fills in an expression with everything chosen. @throws Error on a variable that is not known. */
export function filledIn(expr: string): string {
  return expr.replace(/\$\{?(\w+)(?::\w+)?\}?/g, (text, name: string) => {
    const value = TIMES[name] ?? (CHOICES.includes(name) ? '.*' : undefined)
    if (value === undefined) throw new Error(`a variable that is not known: ${text} in ${expr}`)
    return value
  })
}
