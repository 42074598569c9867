import type { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { EXIT } from '../exit.ts'
import { jsonLine } from '../output.ts'
import { exitCodeOfSignal, onStopSignals } from '../stop-signals.ts'
import { parseCount } from '../whole-number.ts'

interface DemoFlags {
  readonly processes: number
  readonly json?: boolean
}

const EXAMPLES = `
Publishes one job for every file below the folder, has worker processes compute the SHA-256 of each, kills one of
them in the middle, and compares every hash with its own. Fails if a file is missing or differs, or if there was
nothing to recover. Runs on a private Redis, unless --redis names another, and leaves nothing behind.

Examples:
  $ millrace demo
  $ millrace demo ~/photos --processes 4 --json`

export function registerDemo(program: Command, context: CliContext): void {
  program
    .command('demo')
    .description('see a worker being killed, and nothing lost')
    .argument('[folder]', 'the files to hash (default: what is installed in node_modules)')
    .option('--processes <count>', 'worker processes', (text) => parseCount('--processes', text, { most: 64 }), 2)
    .option('--json', 'print the result as JSON')
    .addHelpText('after', EXAMPLES)
    .action(async (folder: string | undefined, flags: DemoFlags, command: Command) => {
      // A demo is no guest in the Redis of the environment: only one that is named here is used.
      const isNamed = command.optsWithGlobals<{ redis?: string }>().redis !== undefined
      await demonstrate(context, { folder, redis: isNamed ? context.redis() : undefined, flags })
    })
}

interface Asked {
  readonly folder: string | undefined
  readonly redis: string | undefined
  readonly flags: DemoFlags
}

async function demonstrate(context: CliContext, asked: Asked): Promise<void> {
  const stopping = new AbortController()
  let stoppedBy: NodeJS.Signals | undefined
  const stopListening = onStopSignals(
    (signal) => {
      stoppedBy = signal
      stopping.abort()
    },
    (exitCode) => process.exit(exitCode),
  )
  try {
    const [{ runDemo }, { reportLines }] = await Promise.all([import('../demo/demo.ts'), import('../demo/report.ts')])
    const { folder, redis, flags } = asked
    const report = await runDemo(context, { folder, redis, processes: flags.processes }, stopping.signal)
    const { stdout } = context
    stdout.write(flags.json ? jsonLine(report) : `${reportLines(report, stdout).join('\n')}\n`)
    context.finish(report.faults.length === 0 ? EXIT.ok : EXIT.failed)
  } catch (error) {
    if (stoppedBy === undefined) throw error
    context.say('interrupted; nothing is left behind')
    // Something that cannot be interrupted, such as a download, may still be under way.
    process.exit(exitCodeOfSignal(stoppedBy))
  } finally {
    stopListening()
  }
}
