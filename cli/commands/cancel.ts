import type { Command } from 'commander'
import type { CancelResult } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { EXIT } from '../exit.ts'
import { fittingTable } from '../fitting-table.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine } from '../output.ts'

interface CancelFlags {
  readonly group?: string
  readonly json?: boolean
}

const DESCRIPTION = 'cancel a job, wherever it is'

const EXAMPLES = `
A delayed publish, a retry or a dead letter is removed. Workers hear of a cancel within two seconds: from
then on a job that was not delivered yet is not run, and one that runs, or was taken meanwhile, has its signal aborted; if
its handler completes all the same, it is completed. A settled job stays as it is: if that is all there is, the exit code
is 4.

Examples:
  $ millrace cancel orders 1795245552380-0
  $ millrace cancel orders 1795245552380-0 --group billing
  $ millrace cancel orders 1795245552380-0 --json | jq '.groups[] | {group, was}'`

export function registerCancel(program: Command, context: CliContext): void {
  addCancel(program, context, EXAMPLES)
}

/** Adds the command to a parent: it is `cancel` and `scheduled cancel`. */
export function addCancel(parent: Command, context: CliContext, help: string): void {
  parent
    .command('cancel')
    .description(DESCRIPTION)
    .argument('<stream>', 'the stream that it was published to')
    .argument('<job id>', 'the id that its publish returned')
    .option('--group <group>', 'for this group only')
    .option('--json', 'print what became of it as JSON')
    .addHelpText('after', help)
    .action(async (stream: string, id: string, { group, json }: CancelFlags) => {
      const options = group === undefined ? {} : { group }
      const result = await withInspector(context, (inspector) => inspector.cancel(stream, id, options))
      context.stdout.write(json === true ? jsonLine(result) : tableOf(context.stdout, result))
      for (const line of remarksOn(result)) context.say(line)
      if (!result.cancelled) context.finish(EXIT.notFound)
    })
}

function tableOf(stdout: NodeJS.WriteStream, { delayed, groups }: CancelResult): string {
  const rows = groups.map(({ group, was, cancelled }) => [group, was, cancelled ? 'cancelled' : '-'])
  if (rows.length === 0) rows.push(['-', delayed ? 'delayed' : 'waiting', 'cancelled'])
  return `${fittingTable(stdout, [{ title: 'group', least: 16 }, { title: 'was' }, { title: 'now' }], rows).join('\n')}\n`
}

function remarksOn({ cancelled, groups }: CancelResult): string[] {
  if (!cancelled) return ['nothing to cancel: the job is settled']
  const remarks: string[] = []
  if (groups.some(({ was }) => was === 'running')) {
    remarks.push('a worker has it: its signal aborts within a second, and if its handler completes, so does the job')
  }
  if (groups.some((group) => group.was === 'unknown' && group.cancelled)) {
    remarks.push('its entry is too far into the stream to be found: it is cancelled if it has not run')
  }
  return remarks
}
