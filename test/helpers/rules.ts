import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parser } from '@prometheus-io/lezer-promql'
import { parse } from 'yaml'

/** The rules of grafana/prometheus, their tests, and what an expression names. */

export const PROMETHEUS_FOLDER = join(import.meta.dirname, '../../grafana/prometheus')
export const RULES_FOLDER = join(PROMETHEUS_FOLDER, 'rules')
export const RULE_TESTS_FOLDER = join(PROMETHEUS_FOLDER, 'tests')

export interface Rule {
  readonly file: string
  readonly group: string
  readonly expr: string
  /** One of both is its name. */
  readonly record?: string
  readonly alert?: string
  readonly for?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
}

export function readRules(): Rule[] {
  return ymlIn(RULES_FOLDER).flatMap((file) => {
    const { groups } = read<{ groups: { name: string; rules: Rule[] }[] }>(join(RULES_FOLDER, file))
    return groups.flatMap(({ name, rules }) => rules.map((rule) => ({ ...rule, file, group: name })))
  })
}

/** What a test says of an alert: how many of it there are at a time. */
export interface AlertCase {
  readonly file: string
  readonly alert: string
  readonly expected: number
}

export function readAlertCases(): AlertCase[] {
  interface Test {
    alert_rule_test?: { alertname: string; exp_alerts?: unknown[] }[]
  }
  return ymlIn(RULE_TESTS_FOLDER).flatMap((file) => {
    const { tests } = read<{ tests: Test[] }>(join(RULE_TESTS_FOLDER, file))
    return tests.flatMap(({ alert_rule_test: cases = [] }) =>
      cases.map(({ alertname, exp_alerts = [] }) => ({ file, alert: alertname, expected: exp_alerts.length })),
    )
  })
}

/** What of an Alertmanager's configuration names alerts. */
export function readAlertmanager(): {
  readonly inhibit_rules: readonly { readonly source_matchers: string[]; readonly target_matchers: string[] }[]
} {
  return read(join(PROMETHEUS_FOLDER, 'alertmanager.yml'))
}

export function ymlIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.yml'))
    .sort()
}

/** A series that an expression reads, and the labels that it is chosen by. */
export interface Selector {
  readonly name: string
  readonly labels: readonly string[]
}

/** @throws Error if it is no PromQL. */
export function selectorsOf(expr: string): Selector[] {
  const found: { name: string; labels: string[] }[] = []
  const text = (node: { from: number; to: number }): string => expr.slice(node.from, node.to)
  parser.parse(expr).iterate({
    enter(node) {
      if (node.type.isError) throw new Error(`no PromQL at character ${node.from}: ${expr}`)
      if (node.name === 'VectorSelector') found.push({ name: '', labels: [] })
      const last = found.at(-1)
      if (node.name === 'Identifier' && last !== undefined) last.name = text(node)
      if (node.name === 'LabelName' && node.node.parent?.name === 'UnquotedLabelMatcher') last?.labels.push(text(node))
    },
  })
  return found
}

/** As Grafana would fill it in, for reading names: the variables that stand outside of quotes are all times. */
export function withoutVariables(expr: string): string {
  return expr.replace(/\$\{?__(rate_interval|interval|range)\}?/g, '5m').replace(/\$__range_s|\$__interval_ms/g, '300')
}

function read<Content>(path: string): Content {
  return parse(readFileSync(path, 'utf8')) as Content
}
