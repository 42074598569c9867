import { recorded } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

export const budgets: RowSpec = {
  title: 'Are the promises kept?',
  panels: [
    series('Failures burn', 'none', {
      description:
        'How many times faster than allowed jobs die: 1 uses up the budget in just its month, 14.4 in two days and pages. Both windows must be high: a short peak alone does not page.',
      queries: [
        burn('millrace_finished_errors_per_finished', '5m', 'failure'),
        burn('millrace_finished_errors_per_finished', '1h', 'failure'),
        burn('millrace_finished_errors_per_finished', '6h', 'failure'),
      ],
      links: [
        look('Why do they die?', 'stream', 'Dead by reason'),
        runbook('What to do?', 'MillraceSuccessBudgetBurnFast'),
      ],
    }),
    series('Lateness burns', 'none', {
      description:
        'How many times faster than allowed jobs start later than 30 s. Silent in a total stall, when nothing starts at all: then the lag is what tells.',
      queries: [
        burn('millrace_late_per_started', '5m', 'lateness'),
        burn('millrace_late_per_started', '1h', 'lateness'),
        burn('millrace_late_per_started', '6h', 'lateness'),
      ],
      links: [
        look('How long do they wait?', 'stream', 'Wait'),
        runbook('What to do?', 'MillraceFreshnessBudgetBurnFast'),
      ],
    }),
  ],
}

/** A rate of what is bad, as a multiple of what the budget allows. */
function burn(name: string, window: string, budget: 'failure' | 'lateness') {
  const used = recorded(`stream_group:${name}:ratio_rate${window}`)
  return {
    expr: `${used} / scalar(max(millrace:${budget}_budget:threshold))`,
    legend: `{{stream}}/{{group}} ${window}`,
  }
}
