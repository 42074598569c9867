/**
 * What a dashboard says, apart from how Grafana wants it written: panels in rows, from left to right. Ids and places follow
 * from the order, so that a panel put in between moves the others and nobody has to count.
 */

export type DashboardKey = 'overview' | 'stream' | 'workers'

export interface DashboardSpec {
  readonly key: DashboardKey
  readonly title: string
  readonly description: string
  readonly rows: readonly RowSpec[]
}

export interface RowSpec {
  readonly title: string
  readonly panels: readonly PanelSpec[]
}

export interface PanelSpec {
  readonly kind: 'timeseries' | 'stat' | 'table' | 'heatmap'
  readonly title: string
  /** What it shows, what is bad, and what to do or to ask then. */
  readonly description: string
  /** A unit id of Grafana. */
  readonly unit: string
  readonly queries: readonly Query[]
  /** The next questions. */
  readonly links: readonly Next[]
  /** Of 24 columns. */
  readonly width: number
  readonly height?: number
  /** Areas on top of each other: for parts of a whole. */
  readonly stacked?: boolean
  /** A colour from this value on. Only for what cannot be a matter of taste, such as more than none. */
  readonly colours?: readonly (readonly [from: number, colour: string])[]
  /** Words for values, such as `up` for 1. */
  readonly words?: Readonly<Record<string, string>>
  /** What a click on a series leads to. @default the stream and group of the series, where it has them */
  readonly click?: DashboardKey
  /** Of a table: the title of the column to sort by, the largest first. */
  readonly worstFirst?: string
  /** Of a table: a unit for each column, by its title. */
  readonly columns?: Readonly<Record<string, string>>
}

export interface Query {
  readonly expr: string
  /** Of a table: the title of the column. */
  readonly legend: string
  /** Drawn as a dashed line; in a stat, what is above it is red. Comes from the recording rules' constants. */
  readonly isThreshold?: boolean
}

export type Next = ToPanel | ToRunbook

/** A dashboard, or one panel of it, for the same stream, group and time. */
export interface ToPanel {
  readonly question: string
  readonly dashboard: DashboardKey
  readonly panel?: string
}

/** A section of docs/runbook.md. */
export interface ToRunbook {
  readonly question: string
  readonly runbook: string
}

/** The name by which links and provisioning know a dashboard. */
export function uidOf(key: DashboardKey): string {
  return `millrace-${key}`
}

/** @returns the panels of a dashboard with the ids that they get, rows counted too. */
export function numbered({ rows }: DashboardSpec): { id: number; row: RowSpec; panel?: PanelSpec }[] {
  let id = 0
  return rows.flatMap((row) => [{ id: ++id, row }, ...row.panels.map((panel) => ({ id: ++id, row, panel }))])
}
