import type { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine, plural } from '../output.ts'
import { resumeCommand } from '../replay/asked.ts'
import { replayDetailLines, replayLines } from '../replay/replay-text.ts'
import { runReplay } from '../replay/running.ts'
import { parseCount } from '../whole-number.ts'

interface Flags {
  readonly rate?: number
  readonly json?: true
}

const LIST_HELP = `
A replay is kept at the stream that it brings jobs into.

Examples:
  $ millrace replays list orders
  $ millrace replays list orders --json | jq -r '.replays[] | select(.status == "paused") | .id'`

const SHOW_HELP = `
Examples:
  $ millrace replays show orders rk3m7q2ab
  $ millrace replays show orders rk3m7q2ab --json | jq .copied`

const RESUME_HELP = `
Goes on with a replay that was paused, or whose process died. Each match is replayed once, also if two go on with it.

Examples:
  $ millrace replays resume orders rk3m7q2ab
  $ millrace replays resume orders rk3m7q2ab --rate 200`

const CANCEL_HELP = `
Whoever runs it stops; what was copied stays. Retention may then have what it had not read.

Examples:
  $ millrace replays cancel orders rk3m7q2ab
  $ millrace replays cancel orders rk3m7q2ab --json`

export function registerReplays(program: Command, context: CliContext): void {
  const replays = program.command('replays').description('look at replays, go on with them, cancel them')
  registerList(replays, context)
  registerShow(replays, context)
  registerResume(replays, context)
  registerCancel(replays, context)
}

function registerList(replays: Command, context: CliContext): void {
  streamOf(replays.command('list').description('list the replays into a stream or its groups, the newest first'))
    .option('--json', 'print JSON')
    .addHelpText('after', LIST_HELP)
    .action((stream: string, { json }: Flags) =>
      withInspector(context, async (inspector) => {
        const found = await inspector.replays.list(stream)
        if (json) context.stdout.write(jsonLine({ stream, replays: found }))
        else if (found.length === 0) context.say(`there are no replays into ${stream}`)
        else context.stdout.write(`${replayLines(context.stdout, found).join('\n')}\n`)
      }),
    )
}

function registerShow(replays: Command, context: CliContext): void {
  placed(replays.command('show').description('show what a replay is of and how far it is'))
    .option('--json', 'print JSON')
    .addHelpText('after', SHOW_HELP)
    .action((stream: string, id: string, { json }: Flags, command: Command) =>
      withInspector(context, async (inspector) => {
        const replay = await inspector.replays.show(stream, id)
        if (json) context.stdout.write(jsonLine(replay))
        else context.stdout.write(`${replayDetailLines(replay).join('\n')}\n`)
        if (replay.status === 'paused') context.say(`to go on: ${resumeCommand(command, replay)}`)
      }),
    )
}

function registerResume(replays: Command, context: CliContext): void {
  placed(replays.command('resume').description('go on with a replay'))
    .option('--rate <count>', 'how many a second at most, from now on', (text) =>
      parseCount('--rate', text, { most: 1_000_000 }),
    )
    .option('--json', 'print what came of it as JSON')
    .addHelpText('after', RESUME_HELP)
    .action((stream: string, id: string, { rate, json }: Flags, command: Command) =>
      withInspector(context, async (inspector) => {
        const replay = await inspector.replays.show(stream, id)
        if (replay.status === 'done') {
          // Lets go what it may still hold: its process may have died right behind the last step.
          await inspector.replays.resume(stream, id)
          if (json) context.stdout.write(jsonLine({ ...replay, command: null }))
          return context.say(`replay ${id} is done already: it had replayed ${plural(replay.copied, 'job')}`)
        }
        await runReplay(context, { command, json: json === true, copiedBefore: replay.copied }, (listening) =>
          inspector.replays.resume(stream, id, { ...(rate === undefined ? {} : { perSecond: rate }), ...listening }),
        )
      }),
    )
}

function registerCancel(replays: Command, context: CliContext): void {
  placed(replays.command('cancel').description('end a replay for good'))
    .option('--json', 'print what came of it as JSON')
    .addHelpText('after', CANCEL_HELP)
    .action((stream: string, id: string, { json }: Flags) =>
      withInspector(context, async (inspector) => {
        const replay = await inspector.replays.cancel(stream, id)
        if (json) context.stdout.write(jsonLine(replay))
        const told = replay.status === 'done' ? 'was done already' : 'is cancelled'
        context.say(`replay ${id} ${told}; it had replayed ${plural(replay.copied, 'job')}`)
      }),
    )
}

function streamOf(command: Command): Command {
  return command.argument('<stream>', 'the stream that jobs are brought into')
}

function placed(command: Command): Command {
  return streamOf(command).argument('<id>', 'the id of the replay')
}
