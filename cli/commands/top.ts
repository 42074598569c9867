import type { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { parseDuration } from '../duration.ts'
import { usageError } from '../exit.ts'
import { withInspector } from '../inspector.ts'

const HELP = `
Streams, then the groups of one, then pending jobs, dead letters and workers of a group. Keys: up and down or j and k move,
enter opens, esc goes back, p pauses or resumes, r redrives, ? tells of all of them, q quits. What changes something asks
first.

Examples:
  $ millrace top
  $ millrace top orders
  $ millrace top --every 5s`

const EVERY_MS = 1000

export function registerTop(program: Command, context: CliContext): void {
  program
    .command('top')
    .description('watch it live on the full screen; pause, resume, redrive')
    .argument('[stream]', 'begin with the groups of this stream')
    .option('--every <interval>', 'how often to look, 1s or longer (default: 1s)', (text) =>
      parseDuration('--every', text, { minMs: EVERY_MS }),
    )
    .addHelpText('after', HELP)
    .action(async (stream: string | undefined, { every = EVERY_MS }: { every?: number }) => {
      const { stdin, stdout } = context
      if (!stdout.isTTY || !stdin.isTTY) {
        throw usageError('top needs a terminal; without one use: millrace stats --watch')
      }
      await withInspector(context, async (inspector) => {
        const { Top } = await import('../top/loop.ts')
        // A stream that does not exist is told of before the screen is taken.
        if (stream !== undefined) await inspector.stats(stream)
        await new Top(context, inspector, { stream, everyMs: every }).run()
      })
    })
}
