import type { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { diagnosisLines, summaryLine } from '../doctor/text.ts'
import { EXIT } from '../exit.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine } from '../output.ts'
import { columnsOf } from '../paragraphs.ts'

interface DoctorFlags {
  readonly strict?: boolean
  readonly json?: boolean
}

const HELP = `
Looks at the server (version and known bugs, eviction, memory, persistence, replicas, clock, what this user may do) and at
the streams on it (types of keys, retention, groups without workers, abandoned ones, jobs that are stuck, overdue or dead).
It writes nothing. What a managed Redis does not tell is shown as not known.

  failed    jobs are lost or refused, now or at the next restart or full memory
  warnings  somebody should act
  notes     good to know

Exits with 1 if something failed, with --strict also for a warning, and with 3 if Redis cannot be reached.

Examples:
  $ millrace doctor
  $ millrace doctor orders --strict
  $ millrace doctor --json | jq -r '.findings[] | select(.level == "fail") | .fix'`

export function registerDoctor(program: Command, context: CliContext): void {
  program
    .command('doctor')
    .description('look for what is wrong with Redis and the streams on it, and say what to do')
    .argument('[stream]', 'one stream only')
    .option('--strict', 'exit with 1 for warnings too')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action((stream: string | undefined, { strict = false, json = false }: DoctorFlags) =>
      withInspector(context, async (inspector) => {
        const diagnosis = await inspector.doctor(stream === undefined ? {} : { stream })
        const { stdout } = context
        if (json) stdout.write(jsonLine({ at: new Date().toISOString(), ...diagnosis }))
        else {
          const lines = diagnosisLines(diagnosis, { stdout, columns: Math.min(80, columnsOf(stdout)) })
          stdout.write(`${[...lines, summaryLine(diagnosis)].join('\n')}\n`)
        }
        const isBad = diagnosis.findings.some(({ level }) => level === 'fail' || (strict && level === 'warn'))
        context.finish(isBad ? EXIT.failed : EXIT.ok)
      }),
    )
}
