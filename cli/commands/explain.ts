import type { Command } from 'commander'
import type { ExplainedGroup, Explanation, Sentence } from '../../src/index.ts'
import { commandLine } from '../command-line.ts'
import type { CliContext } from '../context.ts'
import { EXIT } from '../exit.ts'
import { withInspector } from '../inspector.ts'
import { jsonLine, printable, styled } from '../output.ts'
import { wrapped } from '../paragraphs.ts'

interface ExplainFlags {
  readonly group?: string
  readonly payload?: true
  readonly json?: true
}

const HELP = `
Says for each group whether the job is not yet delivered, pending, scheduled for another attempt, dead or settled, since
when, why, and how one knows. The id is the one that the publish returned; the id of a dead letter stands for its job. It
costs the same however much the stream holds. The exit code is 4 if nothing is known of the job.

Examples:
  $ millrace explain orders 1795245552380-0
  $ millrace explain orders 1795245552380-0 --group billing --payload
  $ millrace explain orders 1795245552380-0 --json | jq '.groups[] | {group, state}'`

export function registerExplain(program: Command, context: CliContext): void {
  program
    .command('explain')
    .description('say where a job is and why')
    .argument('<stream>', 'the stream that it was published to')
    .argument('<job id>', 'the id that its publish returned')
    .option('--group <group>', 'in this group only')
    .option('--payload', 'print its payload too')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(async (stream: string, id: string, { group, payload, json }: ExplainFlags, command: Command) => {
      const options = { ...(group === undefined ? {} : { group }), ...(payload === true ? { payload } : {}) }
      const explanation = await withInspector(context, (inspector) => inspector.explain(stream, id, options))
      if (json === true) context.stdout.write(jsonLine(explanation))
      else context.stdout.write(`${linesOf(context, explanation, command).join('\n')}\n`)
      if (!explanation.isKnown) context.finish(EXIT.notFound)
    })
}

function linesOf(context: CliContext, explanation: Explanation, command: Command): string[] {
  const { id, stream, sentences, job, groups, isKnown } = explanation
  const head = styled(context.stdout, 'bold', `job ${id} of ${stream}`)
  const told = (one: readonly Sentence[]) => sentenceLines(context, one, command)
  // Where nobody knows the job, each group would only say so again.
  const shown = isKnown ? groups : groups.filter(({ state }) => state.at !== 'unknown')
  return [
    head,
    ...told(sentences),
    ...payloadLines(job),
    ...shown.flatMap((group) => ['', styled(context.stdout, 'bold', titleOf(group)), ...told(group.sentences)]),
  ]
}

function titleOf({ group, state }: ExplainedGroup): string {
  return `group ${group}: ${STATES[state.at]}`
}

const STATES: Readonly<Record<ExplainedGroup['state']['at'], string>> = {
  'not-delivered': 'not delivered',
  pending: 'pending',
  scheduled: 'scheduled',
  dead: 'dead',
  settled: 'settled',
  delayed: 'delayed',
  'before-group': 'before the group began',
  nowhere: 'nowhere',
  trimmed: 'trimmed',
  unknown: 'unknown',
}

/** A command stands on a line of its own, whatever its length: it is to be copied. */
function sentenceLines(context: CliContext, sentences: readonly Sentence[], command: Command): string[] {
  const width = Math.max(40, (context.stdout.isTTY && context.stdout.columns) || 80)
  return sentences.flatMap(({ text, command: words }) => [
    ...wrapped(printable(text).split(' '), width - 2).map((line) => `  ${line}`),
    ...(words === null ? [] : [`    $ ${printable(commandLine(command, ...words))}`]),
  ])
}

function payloadLines(job: Explanation['job']): string[] {
  if (job?.payload === undefined) return []
  if (job.payload !== null) return [`  payload: ${printable(job.payload)}`]
  return [job.bytes === null ? '  payload: none' : '  payload: too large to be shown, over 1 MiB']
}
