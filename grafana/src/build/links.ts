import { numbered, uidOf, type DashboardKey, type DashboardSpec, type Next } from './spec.ts'

export interface Link {
  readonly title: string
  readonly url: string
}

/** All that one dashboard passes on to another, so that the next question is about the same streams and the same time. */
const SAME = ['datasource', 'job', 'instance', 'stream', 'group'].map((name) => `\${${name}:queryparam}`).join('&')

/** Resolves the next questions of a panel. @throws Error for a panel that no dashboard has. */
export function linkOf(next: Next, all: readonly DashboardSpec[]): Link {
  if ('runbook' in next) return { title: next.question, url: runbookUrl(next.runbook) }
  const view = next.panel === undefined ? '' : `&viewPanel=${idOf(next.dashboard, next.panel, all)}`
  return { title: next.question, url: `/d/${uidOf(next.dashboard)}?\${__url_time_range}&${SAME}${view}` }
}

/**
 * What a click on a series leads to: the dashboard for its own stream and group, not for all that is shown. Names may hold
 * what ends a parameter (`&`, `#`, `+`), which Grafana by itself leaves as it is in an address.
 */
export function clickOf(key: DashboardKey, labels: 'series' | 'row'): Link {
  const label = (name: string, format = '') =>
    labels === 'series' ? `\${__field.labels.${name}${format}}` : `\${__data.fields.${name}${format}}`
  const encoded = (name: string) => label(name, ':percentencode')
  const chosen = `var-stream=${encoded('stream')}&var-group=${encoded('group')}`
  const rest = '${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}'
  const title = `${key === 'stream' ? 'Look into' : 'Workers of'} ${label('stream')} / ${label('group')}`
  return { title, url: `/d/${uidOf(key)}?${rest}&${chosen}` }
}

function idOf(key: DashboardKey, title: string, all: readonly DashboardSpec[]): number {
  const dashboard = all.find((each) => each.key === key)
  const found = dashboard && numbered(dashboard).find(({ panel }) => panel?.title === title)
  if (found === undefined) throw new Error(`the dashboard ${key} has no panel "${title}" for a link to lead to`)
  return found.id
}

/** A heading becomes an anchor as the usual renderers of Markdown make it. No heading is the page. */
function runbookUrl(heading: string): string {
  return `\${docs}/runbook.md${heading === '' ? '' : `#${heading.toLowerCase().replaceAll(' ', '-')}`}`
}
