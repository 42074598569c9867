/** What the panels of a dashboard show, asked of Prometheus as Grafana would: from the JSON itself. */

export interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: readonly Target[]
  readonly transformations?: readonly Transformation[]
  readonly fieldConfig?: FieldConfig
}

interface Target {
  readonly refId: string
  readonly expr: string
  readonly legendFormat: string
}

interface Transformation {
  readonly id: string
  readonly options: { readonly configRefId?: string; readonly indexByName?: Readonly<Record<string, number>> }
}

interface FieldConfig {
  readonly defaults: {
    readonly unit?: string
    readonly thresholds?: { readonly steps: readonly { readonly value: number | null; readonly color: string }[] }
    readonly mappings?: readonly { readonly options: Readonly<Record<string, { readonly text: string }>> }[]
  }
  readonly overrides: readonly {
    readonly matcher: { readonly options: string }
    readonly properties: readonly { readonly id: string; readonly value: unknown }[]
  }[]
}

export interface Series {
  readonly refId: string
  readonly legend: string
  readonly labels: Readonly<Record<string, string>>
  /** Time in seconds since the epoch, and value. */
  readonly points: readonly (readonly [number, number])[]
}

export interface Answered {
  readonly panel: Panel
  readonly series: readonly Series[]
}

export interface Window {
  readonly fromSeconds: number
  readonly toSeconds: number
  readonly stepSeconds: number
  /** What Grafana would take: four times the interval between scrapes. */
  readonly rateInterval: string
}

/** @throws Error for a panel with a query that Prometheus refuses. */
export async function answered(origin: string, panels: readonly Panel[], window: Window): Promise<Answered[]> {
  const found: Answered[] = []
  for (const panel of panels) {
    const isNow = panel.type !== 'timeseries'
    const series = await Promise.all((panel.targets ?? []).map((target) => ask(origin, target, window, isNow)))
    found.push({ panel, series: series.flat() })
  }
  return found
}

interface Answer {
  readonly status: string
  readonly error?: string
  readonly data?: {
    readonly result: readonly {
      readonly metric: Readonly<Record<string, string>>
      readonly value?: readonly [number, string]
      readonly values?: readonly (readonly [number, string])[]
    }[]
  }
}

async function ask(origin: string, target: Target, window: Window, isNow: boolean): Promise<Series[]> {
  const { fromSeconds, toSeconds, stepSeconds } = window
  const query = filled(target.expr, window.rateInterval)
  const when = isNow ? { time: toSeconds } : { start: fromSeconds, end: toSeconds, step: stepSeconds }
  const asked = new URLSearchParams({ query, ...Object.fromEntries(Object.entries(when).map(([k, v]) => [k, `${v}`])) })
  const response = await fetch(`${origin}/api/v1/${isNow ? 'query' : 'query_range'}?${asked.toString()}`)
  const { data, error } = (await response.json()) as Answer
  if (data === undefined) throw new Error(`${query}: ${error ?? response.statusText}`)
  return data.result.map(({ metric, value, values }) => ({
    refId: target.refId,
    legend: legendOf(target.legendFormat, metric),
    labels: metric,
    points: (values ?? (value === undefined ? [] : [value])).map(([at, text]) => [at, Number(text)] as const),
  }))
}

/** With All chosen for every variable. */
function filled(expr: string, rateInterval: string): string {
  return expr.replaceAll('$__rate_interval', rateInterval).replace(/\$(job|instance|stream|group)\b/g, '.+')
}

function legendOf(format: string, labels: Readonly<Record<string, string>>): string {
  return format.replace(/\{\{(\w+)\}\}/g, (_, name: string) => labels[name] ?? '')
}
