import { fileURLToPath } from 'node:url'
import { format, resolveConfig } from 'prettier'
import { ERROR_TABLE } from '../src/error-table.ts'
import { EVENTS, type EventName, type EventNote } from '../src/event-table.ts'
import { PRODUCER_EVENTS, type ProducerEventName } from '../src/producer-events.ts'

/** A page of docs/ that is made from code, and so cannot say anything else than the code does. */
export interface Page {
  readonly path: string
  readonly text: string
}

export async function pages(): Promise<Page[]> {
  return Promise.all([page('events.md', eventsText()), page('errors.md', errorsText())])
}

async function page(name: string, text: string): Promise<Page> {
  const path = fileURLToPath(new URL(`../docs/${name}`, import.meta.url))
  return { path, text: await format(text, { ...(await resolveConfig(path)), parser: 'markdown' }) }
}

function eventsText(): string {
  const names = Object.keys(EVENTS) as EventName[]
  const ofJobs = names.filter((name) => name.startsWith('job:') && name !== 'job:late')
  return `${MADE('src/event-table.ts and src/producer-events.ts')}

# Events

A worker tells what happens to it and its jobs; so does [a producer](#of-a-producer), of those it publishes.

\`\`\`ts
worker.on('job:dead', ({ id, job, reason }) => alert(\`\${job} \${id} is dead: \${reason}\`))
\`\`\`

\`on\`, \`once\` and \`off\`, of this worker alone: other processes have their own. Every payload has \`stream\` and \`group\`.
Listeners are called in turn, in the worker's own thread: what takes long in one holds up jobs. A promise that one returns is not waited
for. A listener that throws, or whose promise is rejected, is logged and changes nothing: neither the outcome of a job nor what other
listeners hear.

Tools that are not handed a worker hear the same from the channels \`millrace:<event>\` of \`node:diagnostics_channel\`: see
[tracing.md](tracing.md#channels).

Events are for reactions, not for accounts: a process that dies tells nothing more. Count by [metrics](metrics.md) or by what Redis holds.

## Of one job

They also have \`id\`, \`job\` (its name), \`attempt\` (which run by failures), \`deliveries\` and \`entryId\`.

${eventTable(EVENTS, ofJobs)}

## Others of a worker

${eventTable(
  EVENTS,
  names.filter((name) => !ofJobs.includes(name)),
)}

## Of a producer

A producer has the same \`on\`, \`once\` and \`off\`, and channels of the same kind. Every payload about a job or a buffer has
\`stream\`, that about a job also \`job\` (its name). What they are for is told in [publishing.md](publishing.md).

${eventTable(PRODUCER_EVENTS, Object.keys(PRODUCER_EVENTS) as ProducerEventName[])}
`
}

function eventTable<Name extends string>(of: Readonly<Record<Name, EventNote>>, names: readonly Name[]): string {
  return table(
    ['event', 'when', 'what it does not mean', 'fields'],
    names.map((name) => [`\`${name}\``, of[name].when, of[name].not, of[name].fields]),
  )
}

function errorsText(): string {
  const rows = Object.entries(ERROR_TABLE).map(([code, note]) => [
    `\`${code}\``,
    note.thrownBy,
    note.inRedis,
    note.todo,
  ])
  return `${MADE('src/error-table.ts')}

# Errors

Every error that millrace throws is a \`MillraceError\` with a \`code\`. Branch on the code: messages are for people, and may be reworded.

${table(['code', 'who throws it', 'is the job in Redis', 'what to do'], rows)}

What a handler throws stays what it is: it is logged, told by [\`job:failed\`](events.md) and kept in the dead letter.
`
}

const MADE = (source: string) => `<!-- Made from ${source} by \`npm run docs\`; edit that. -->`

/** Without padding: prettier does that. */
function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [titles, titles.map(() => '---'), ...rows].map((cells) =>
    cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | '),
  )
  return lines.map((line) => `| ${line} |`).join('\n')
}
