import type { DashboardKey, PanelSpec, ToPanel, ToRunbook } from './spec.ts'

type Rest = Omit<PanelSpec, 'kind' | 'title' | 'unit' | 'width'> & { readonly width?: number }

export function stat(title: string, unit: string, rest: Rest): PanelSpec {
  return { kind: 'stat', title, unit, width: 3, ...rest }
}

export function series(title: string, unit: string, rest: Rest): PanelSpec {
  return { kind: 'timeseries', title, unit, width: 12, ...rest }
}

export function heatmap(title: string, unit: string, rest: Rest): PanelSpec {
  return { kind: 'heatmap', title, unit, width: 12, ...rest }
}

export function table(title: string, unit: string, rest: Rest): PanelSpec {
  return { kind: 'table', title, unit, width: 12, ...rest }
}

export function look(question: string, dashboard: DashboardKey, panel?: string): ToPanel {
  return panel === undefined ? { question, dashboard } : { question, dashboard, panel }
}

export function runbook(question: string, section: string): ToRunbook {
  return { question, runbook: section }
}
