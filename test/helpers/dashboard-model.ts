import { parser } from '@prometheus-io/lezer-promql'

/** A dashboard of Grafana, as far as it is checked. */
export interface Dashboard {
  uid: string
  title: string
  editable: boolean
  templating: { list: Variable[] }
  panels: Panel[]
}

export interface Variable {
  name: string
  type: string
  label?: string
  query?: string | { query: string }
  datasource?: { uid: string }
  refresh?: number
  multi?: boolean
  includeAll?: boolean
  allValue?: string
}

export interface Panel {
  id: number
  type: string
  title?: string
  description?: string
  datasource?: { uid: string }
  gridPos: { x: number; y: number; w: number; h: number }
  targets?: Target[]
  links?: { title: string; url: string }[]
  fieldConfig?: { defaults: { unit?: string; links?: { url: string }[] }; overrides: Override[] }
}

export interface Override {
  properties: { id: string; value?: unknown }[]
}

export interface Target {
  refId: string
  expr: string
  datasource?: { uid: string }
}

/** Panels that show something: rows do not. */
export function shown({ panels }: Dashboard): Panel[] {
  return panels.filter(({ type }) => type !== 'row')
}

export function expressions(dashboard: Dashboard): { panel: Panel; expr: string }[] {
  return shown(dashboard).flatMap((panel) => (panel.targets ?? []).map(({ expr }) => ({ panel, expr })))
}

/** One choice of series within an expression, and what is done with it. */
export interface Selector {
  readonly metric: string
  readonly matchers: readonly { label: string; op: string; value: string }[]
  /** Text between the brackets, if it has a range. */
  readonly range: string | undefined
  /** The functions and operators around it, the nearest first. */
  readonly inside: readonly string[]
  /** Labels by which the operators around it group. */
  readonly by: readonly string[]
}

/** What Grafana puts in before it asks; strings such as "$job" are valid as they are. */
export function substituted(expr: string): string {
  return expr.replaceAll('$__rate_interval', '5m').replaceAll('$__range', '1h')
}

type Node = ReturnType<ReturnType<typeof parser.parse>['cursor']>['node']

export function selectorsOf(expr: string): Selector[] {
  // Of the length of the variable, so that places in one are places in the other.
  const text = expr.replaceAll('$__rate_interval', '5m'.padEnd('$__rate_interval'.length))
  const said = (node: Node): string => expr.slice(node.from, node.to)
  const found: Selector[] = []
  parser.parse(text).iterate({
    enter: ({ node }) => {
      if (node.name !== 'VectorSelector') return
      const around = ancestors(node)
      const matrix = around.find(({ name }) => name === 'MatrixSelector')
      const by = around.flatMap(
        (each) => each.getChild('AggregateModifier')?.getChild('GroupingLabels')?.getChildren('LabelName') ?? [],
      )
      found.push({
        metric: said(node.getChild('Identifier') as Node),
        matchers: (node.getChild('LabelMatchers')?.getChildren('UnquotedLabelMatcher') ?? []).map((matcher) => ({
          label: said(matcher.getChild('LabelName') as Node),
          op: said(matcher.getChild('MatchOp') as Node),
          value: said(matcher.getChild('StringLiteral') as Node).slice(1, -1),
        })),
        range: matrix === undefined ? undefined : said(matrix).replace(/^.*\[|\]$/g, ''),
        inside: around
          .map((each) => each.getChild('FunctionIdentifier') ?? each.getChild('AggregateOp'))
          .filter((each) => each !== null)
          .map(said),
        by: by.map(said),
      })
    },
  })
  return found
}

function ancestors(node: Node): Node[] {
  const found: Node[] = []
  for (let at = node.parent; at !== null; at = at.parent) found.push(at)
  return found
}
