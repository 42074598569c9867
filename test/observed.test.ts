import { expect, test } from 'vitest'
import { dashboardExpressions, filledIn } from './helpers/dashboards.ts'
import { knownMetrics, metricOfSeries, ownMetrics } from './helpers/metric-names.ts'
import { readRules, selectorsOf } from './helpers/rules.ts'

/** Metrics, rules and dashboards know the same names: none is made up, and none is kept for nobody. */

const known = knownMetrics()
const rules = readRules()
const recorded = new Set(rules.flatMap(({ record = [] }) => record))
const dashboards = dashboardExpressions()

/** What Prometheus makes itself. */
const OWN_SERIES = ['up', 'ALERTS']

/** The metrics behind an expression, those of recording rules too. */
function metricsIn(expr: string): string[] {
  return selectorsOf(expr).flatMap(({ name }) => {
    const rule = rules.find(({ record }) => record === name)
    return rule === undefined ? [metricOfSeries(name, known) ?? name] : metricsIn(rule.expr)
  })
}

test('there are dashboards', () => {
  expect(dashboards).not.toEqual([])
})

test('a dashboard names only metrics and recorded series that there are', () => {
  const unknown = dashboards.flatMap(({ place, expr }) =>
    selectorsOf(filledIn(expr))
      .filter(
        ({ name }) => !OWN_SERIES.includes(name) && !recorded.has(name) && metricOfSeries(name, known) === undefined,
      )
      .map(({ name }) => `${place}: ${name}`),
  )
  expect(unknown).toEqual([])
})

test('every metric of millrace is shown on a dashboard or watched by an alert', () => {
  const alerts = rules.filter(({ alert }) => alert !== undefined).map(({ expr }) => expr)
  const shown = new Set([...alerts, ...dashboards.map(({ expr }) => filledIn(expr))].flatMap(metricsIn))
  expect([...ownMetrics().keys()].filter((name) => !shown.has(name))).toEqual([])
})
