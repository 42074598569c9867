import type { Command } from 'commander'
import type { WorkerRow } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { withInspector } from '../inspector.ts'
import { busyText, seenText } from '../job-text.ts'
import { jsonLine, plural } from '../output.ts'

const HELP = `
worker   its name as a consumer, new at every start
seen     how long ago its last pulse came; dead where that is 5 seconds or more, or where it is no longer on the list
busy     handlers that run, of those that can run at once
pending  entries that it holds; those of a dead worker go to another one when their lease is over

Examples:
  $ millrace workers orders main
  $ millrace workers orders main --json | jq -r '.workers[] | select(.isAlive | not) | .worker'`

export function registerWorkers(program: Command, context: CliContext): void {
  program
    .command('workers')
    .description('show who works for a group, and who died and holds jobs still')
    .argument('<stream>', 'the stream')
    .argument('<group>', 'the group')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action((stream: string, group: string, { json = false }: { json?: boolean }) =>
      withInspector(context, async (inspector) => {
        const page = await inspector.workers(stream, group)
        const at = new Date().toISOString()
        if (json) return void context.stdout.write(jsonLine({ at, stream, group, ...page }))
        const { workers, handedBack, more } = page
        if (workers.length > 0)
          context.stdout.write(`${fittingTable(context.stdout, COLUMNS, workers.map(cellsOf)).join('\n')}\n`)
        else context.say(`group ${group} of ${stream} has no workers`)
        if (handedBack > 0) {
          context.say(`${plural(handedBack, 'entry', 'entries')} handed back, for the next worker that has room`)
        }
        if (more) context.say('there are more workers than are shown: these were heard of last')
      }),
    )
}

const COLUMNS: readonly FittingColumn[] = [
  { title: 'worker', least: 20 },
  { title: 'host', spare: 3, least: 10 },
  { title: 'pid', align: 'right', spare: 2 },
  { title: 'seen', align: 'right' },
  { title: 'busy', align: 'right' },
  { title: 'jobs/s', align: 'right' },
  { title: 'pending', align: 'right' },
  { title: 'version', spare: 1 },
]

function cellsOf(row: WorkerRow): string[] {
  return [
    row.worker,
    row.host ?? '-',
    row.pid === null ? '-' : String(row.pid),
    seenText(row),
    busyText(row),
    row.perSecond.toFixed(1),
    String(row.pending),
    row.version ?? '-',
  ]
}
