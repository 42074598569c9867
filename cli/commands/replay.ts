import type { Command } from 'commander'
import type { Inspector, ReplayPlan } from '../../src/index.ts'
import type { CliContext } from '../context.ts'
import { CliError, EXIT } from '../exit.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine } from '../output.ts'
import { RANGE_HELP, withRangeFlags } from '../range.ts'
import { executeCommand, optionsOf, type ReplayFlags } from '../replay/asked.ts'
import { planLines, unknownText } from '../replay/plan-text.ts'
import { listening, runReplay } from '../replay/running.ts'
import { exitCodeOfSignal } from '../stop-signals.ts'
import { parseCount } from '../whole-number.ts'

const HELP = `${RANGE_HELP}

Runs jobs of the history once more, for one group or in another stream, the oldest first. Each of them becomes a new job that
says what it is a copy of. Without --execute nothing is changed: what would be replayed is told. Ctrl-C pauses; each match is
replayed exactly once, whatever dies meanwhile. A condition is over job, data, headers and id, in CEL (https://cel.dev).

Examples:
  $ millrace replay orders --from 10:00 --to 10:30 --group main
  $ millrace replay orders --from -15m --where 'job == "send-receipt" && data.order > 40' --group main --rate 500 --execute
  $ millrace replay orders --from 1795245552380-0 --limit 1000 --to-stream orders-test
  $ millrace replay orders --ids failed.txt --group billing --execute`

export function registerReplay(program: Command, context: CliContext): void {
  const replay = program
    .command('replay')
    .description('run jobs of the history again, in a group or a stream')
    .argument('<stream>', 'the stream whose history it is')
  withRangeFlags(replay)
    .option('--ids <file>', 'these jobs: a file with a job id a line, - is stdin')
    .option('--job <name>', 'jobs of this name')
    .option('--where <condition>', 'jobs for which this holds, such as data.order > 40')
    .option('--group <group>', 'the group that gets them')
    .option('--to-stream <stream>', 'the stream that they are appended to')
    .option('--rate <count>', 'how many a second at most', (text) => parseCount('--rate', text, { most: 1_000_000 }))
    .option('--limit <count>', 'how many at most, the oldest first', (text) =>
      parseCount('--limit', text, { most: 1_000_000_000 }),
    )
    .option('--include-replays', 'replay also what a replay brought into the stream')
    .option('--execute', 'do it')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(async (stream: string, flags: ReplayFlags, command: Command) => {
      const options = await optionsOf(context, flags)
      await withInspector(context, async (inspector) => {
        if (flags.execute !== true) return plan(context, inspector, { stream, flags, command, options })
        await runReplay(context, { command, json: flags.json === true }, (listening) =>
          inspector.replays.start(stream, { ...options, ...listening }),
        )
      })
    })
}

interface Asked {
  readonly stream: string
  readonly flags: ReplayFlags
  readonly command: Command
  readonly options: Awaited<ReturnType<typeof optionsOf>>
}

async function plan(context: CliContext, inspector: Inspector, asked: Asked): Promise<void> {
  const { stream, options } = asked
  const { told, interruption } = await listening(context, 'matches', (listening) =>
    inspector.replays.plan(stream, { ...options, ...listening }),
  )
  if (interruption !== undefined) {
    context.say('interrupted: nothing was changed')
    context.finish(exitCodeOfSignal(interruption))
    return
  }
  report(context, told, asked)
}

function report(context: CliContext, plan: ReplayPlan, { stream, flags, command }: Asked): void {
  const { fromId, toId, matches, unknownIds } = plan
  const execute =
    fromId === null || toId === null || matches === 0 ? null : executeCommand(command, stream, { flags, fromId, toId })
  if (flags.json === true) context.stdout.write(jsonLine({ ...plan, command: execute }))
  else context.stdout.write(`${planLines(plan, context.stdout).join('\n')}\n`)
  if (execute === null) throw new CliError(`no job of ${stream} matches: there is nothing to replay`, EXIT.notFound)
  if (flags.json !== true) context.say(`nothing was changed; to replay ${matches === 1 ? 'it' : 'them'}: ${execute}`)
  if (unknownIds.length > 0) throw new CliError(unknownText(unknownIds), EXIT.notFound)
}
