import type { Command } from 'commander'
import type { PauseResult, ResumeResult } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { parseDuration } from '../duration.ts'
import { pauseText } from '../group-text.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine } from '../output.ts'
import { whoami } from '../whoami.ts'

interface PauseFlags {
  readonly for?: number
  readonly reason?: string
  readonly json?: true
}

const YEAR_MS = 366 * 86_400_000

const PAUSE_HELP = `
Within two seconds workers begin no more jobs of the stream, or of the one group. What runs finishes, and publishing goes on.
A pause is shown by millrace stats, with who and why. Pausing again replaces it.

Examples:
  $ millrace pause orders --for 1h --reason 'database migration'
  $ millrace pause orders billing
  $ millrace stats orders`

const RESUME_HELP = `
Workers go on within two seconds. A group works only if neither it nor its stream is paused.

Examples:
  $ millrace resume orders
  $ millrace resume orders billing`

export function registerPause(program: Command, context: CliContext): void {
  program
    .command('pause')
    .description('begin no more jobs of a stream or a group')
    .argument('<stream>', 'the stream')
    .argument('[group]', 'one group only')
    .option('--for <duration>', 'end it by itself after so long (default: until it is resumed)', (text) =>
      parseDuration('--for', text, { minMs: 1000, mostMs: YEAR_MS }),
    )
    .option('--reason <text>', 'why, at most 200 characters')
    .option('--json', 'print JSON')
    .addHelpText('after', PAUSE_HELP)
    .action((stream: string, group: string | undefined, flags: PauseFlags, command: Command) =>
      withInspector(context, async (inspector) => {
        const result = await inspector.pause(stream, {
          ...(group === undefined ? {} : { group }),
          ...(flags.for === undefined ? {} : { forMs: flags.for }),
          ...(flags.reason === undefined ? {} : { reason: flags.reason }),
          by: whoami(),
        })
        tellPaused(context, result, { command, isJson: flags.json === true })
      }),
    )
  program
    .command('resume')
    .description('go on with a stream or a group that was paused')
    .argument('<stream>', 'the stream')
    .argument('[group]', 'one group only')
    .option('--json', 'print JSON')
    .addHelpText('after', RESUME_HELP)
    .action((stream: string, group: string | undefined, { json }: { json?: true }, command: Command) =>
      withInspector(context, async (inspector) => {
        const result = await inspector.resume(stream, group === undefined ? {} : { group })
        tellResumed(context, result, { command, isJson: json === true })
      }),
    )
}

interface Telling {
  readonly command: Command
  readonly isJson: boolean
}

function tellPaused(context: CliContext, result: PauseResult, { command, isJson }: Telling): void {
  const { stream, group, paused, replaced } = result
  const resume = commandLine(command, 'resume', stream, ...(group === null ? [] : [group]))
  if (isJson) context.stdout.write(jsonLine({ ...result, command: resume }))
  context.say(`${nameOf(stream, group)} is paused ${pauseText(paused)}`)
  if (replaced !== null) context.say(`it was paused already, ${pauseText(replaced)}: this pause replaces that one`)
  context.say(`what runs finishes; to go on: ${resume}`)
}

function tellResumed(context: CliContext, result: ResumeResult, { command, isJson }: Telling): void {
  const { stream, group, was, still } = result
  if (isJson) context.stdout.write(jsonLine(result))
  const name = nameOf(stream, group)
  if (was === null) context.say(`${name} was not paused: nothing was changed`)
  else context.say(`resumed ${name}, which was paused ${pauseText(was)}`)
  for (const { group: other, pause } of still) {
    const resume = commandLine(command, 'resume', stream, ...(other === null ? [] : [other]))
    context.say(`${nameOf(stream, other)} stays paused ${pauseText(pause)}; to go on: ${resume}`)
  }
}

function nameOf(stream: string, group: string | null): string {
  return group === null ? `stream ${stream}` : `group ${group} of ${stream}`
}
