import type { Command } from 'commander'
import type { PendingJob } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { exactDuration, parseAge } from '../duration.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { withInspector } from '../inspector.ts'
import { jobText, leftText } from '../job-text.ts'
import { countText, jsonLine, plural, spanText } from '../output.ts'
import { parseCount } from '../whole-number.ts'

interface PendingFlags {
  readonly worker?: string
  readonly idle?: number
  readonly limit?: number
  readonly after?: string
  readonly json?: boolean
}

const HELP = `
job     (gone) where somebody deleted the entry; a mark r says that the group sees it again: a retry, a redrive, a replay
worker  (handed back) where it waits for the next worker
idle    time since the delivery or its last renewal
left    what is left of the lease; when it has run out another worker may take the job
sent    how often it was delivered

Examples:
  $ millrace pending orders main
  $ millrace pending orders main --idle 30s
  $ millrace pending orders main --json | jq -r '.jobs[] | select(.deliveries > 1) | .jobId'`

const MOST = 1000

export function registerPending(program: Command, context: CliContext): void {
  program
    .command('pending')
    .description('show what a group has in hand, who has it and since when')
    .argument('<stream>', 'the stream')
    .argument('<group>', 'the group')
    .option('--worker <name>', 'only what this worker has')
    .option('--idle <age>', 'only what nobody has renewed for so long, such as 30s', (text) => parseAge('--idle', text))
    .option('--limit <count>', 'how many at most (default: 100)', (text) => parseCount('--limit', text, { most: MOST }))
    .option('--after <cursor>', 'go on behind this entry')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action((stream: string, group: string, flags: PendingFlags, command: Command) =>
      withInspector(context, async (inspector) => {
        const { worker, idle, limit, after } = flags
        const page = await inspector.pending(stream, group, {
          ...(worker === undefined ? {} : { worker }),
          ...(idle === undefined ? {} : { minIdleMs: idle }),
          ...(limit === undefined ? {} : { limit }),
          ...(after === undefined ? {} : { after }),
        })
        const { jobs, next, total } = page
        if (flags.json) return void context.stdout.write(jsonLine({ stream, group, ...page }))
        if (jobs.length > 0)
          context.stdout.write(`${fittingTable(context.stdout, COLUMNS, jobs.map(cellsOf)).join('\n')}\n`)
        if (next !== null) {
          const words = ['pending', stream, group, ...wordsOf(flags), '--after', next]
          context.say(`there may be more, of ${countText(total)} pending: ${commandLine(command, ...words)}`)
        } else if (jobs.length === 0) {
          const isFiltered = worker !== undefined || idle !== undefined || after !== undefined
          context.say(noneText(stream, group, isFiltered ? total : 0))
        }
      }),
    )
}

function noneText(stream: string, group: string, total: number): string {
  if (total === 0) return `group ${group} of ${stream} has nothing pending`
  return `of ${plural(total, 'pending entry', 'pending entries')} of group ${group} of ${stream} none is meant`
}

function wordsOf({ worker, idle, limit }: PendingFlags): string[] {
  return [
    ...(worker === undefined ? [] : ['--worker', worker]),
    ...(idle === undefined ? [] : ['--idle', exactDuration(idle)]),
    ...(limit === undefined ? [] : ['--limit', String(limit)]),
  ]
}

const COLUMNS: readonly FittingColumn[] = [
  { title: 'id' },
  { title: 'job', least: 12 },
  { title: 'idle', align: 'right' },
  { title: 'left', align: 'right', spare: 1 },
  { title: 'sent', align: 'right' },
  { title: 'worker', least: 12 },
]

function cellsOf(row: PendingJob): string[] {
  const { jobId, idleMs, deliveries } = row
  return [
    jobId,
    jobText(row),
    spanText(idleMs / 1000),
    leftText(row),
    String(deliveries),
    row.worker ?? '(handed back)',
  ]
}
