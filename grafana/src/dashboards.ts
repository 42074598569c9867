import { fileURLToPath } from 'node:url'
import { format, resolveConfig } from 'prettier'
import { dashboardJson } from './build/dashboard.ts'
import { overview } from './overview.ts'
import { stream } from './stream.ts'
import { workers } from './workers.ts'

/** A dashboard as it lies in grafana/dashboards/, made from what is said here. */
export interface DashboardFile {
  readonly path: string
  readonly text: string
}

export async function dashboards(): Promise<DashboardFile[]> {
  const all = [overview, stream, workers]
  return Promise.all(
    all.map(async (spec) => {
      const path = fileURLToPath(new URL(`../dashboards/${spec.key}.json`, import.meta.url))
      const text = dashboardJson(spec, all)
      return { path, text: await format(text, { ...(await resolveConfig(path)), parser: 'json' }) }
    }),
  )
}
