import * as sdk from '@grafana/grafana-foundation-sdk/dashboard'
import { DATASOURCE } from './panel.ts'

/** Where the pages of docs/ are, for the links to the runbook. */
const DOCS = 'https://unpkg.com/millrace/docs'

/** What is chosen above every dashboard, in the order of choosing. */
export function variables(): (sdk.DatasourceVariableBuilder | sdk.QueryVariableBuilder | sdk.TextBoxVariableBuilder)[] {
  return [
    new sdk.DatasourceVariableBuilder('datasource').label('Data source').type('prometheus'),
    several('job', 'millrace_build_info').description(
      'Scrape jobs of workers and producers; not for what Redis tells.',
    ),
    several('instance', 'millrace_build_info{job=~"$job"}').description(
      'Workers and producers; not for what Redis tells.',
    ),
    several('stream', 'millrace_stream_entries').description('Streams in use.'),
    several('group', 'millrace_group_lag_seconds{stream=~"$stream"}').description('Groups of these streams.'),
    new sdk.TextBoxVariableBuilder('docs')
      .label('Docs')
      .description('Where the pages of docs/ are, for the links to the runbook.')
      .defaultValue(DOCS),
  ]
}

/** The values of a label. All of them are `.+`, so that a new one is seen before the list is read again. */
function several(label: string, series: string): sdk.QueryVariableBuilder {
  const query = `label_values(${series}, ${label})`
  return new sdk.QueryVariableBuilder(label)
    .label(label.charAt(0).toUpperCase() + label.slice(1))
    .datasource(DATASOURCE)
    .query({ query, refId: `millrace-${label}` })
    .definition(query)
    .refresh(sdk.VariableRefresh.OnTimeRangeChanged)
    .sort(sdk.VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue('.+')
    .current({ selected: true, text: ['All'], value: ['$__all'] })
}
