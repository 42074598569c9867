import type { JobDefinition, Schema } from 'millrace'
import type { ClientBase } from 'pg'

export interface InsertOptions {
  /** The stream that the job goes to. @default the job definition's */
  readonly stream?: string
  /** From when on the job is delivered. @default at once */
  readonly runAt?: Date
}

/**
 * Writes a job into the outbox, to be published once the transaction has committed; a rollback takes it back. `client` is the
 * connection that the transaction is open on: a Pool has none, and its type is not taken.
 * @returns the row's id, which becomes the job's idempotency token.
 */
export async function insertJob<Data>(
  client: ClientBase,
  job: JobDefinition<Data, unknown> | string,
  data: NoInfer<Data>,
  options: InsertOptions = {},
): Promise<string> {
  const asked: Asked = typeof job === 'string' ? { name: job, stream: undefined } : job
  const { name, stream: own, version = 1, schema, unique } = asked
  const stream = options.stream ?? own
  if (stream === undefined) throw new TypeError(`expected \`stream\`: job ${name} does not say where it goes`)
  if (Number.isNaN(options.runAt?.getTime())) throw new TypeError(`expected \`runAt\` of ${name} to be a time`)
  const json = JSON.stringify(data) as string | undefined
  if (json === undefined) throw new TypeError(`expected the data of ${name} to be JSON-able; null is no data`)
  if (unique !== undefined)
    throw new TypeError(`expected job ${name} to be without \`unique\`: the outbox has no place for it`)
  if (schema !== undefined) checkFits(name, schema, json)
  const { rows } = await client.query<{ id: string }>(
    'INSERT INTO outbox (stream, job, data, run_at, version) VALUES ($1, $2, $3, $4, $5) RETURNING id',
    [stream, name, json, options.runAt ?? null, version === 1 ? null : version],
  )
  const [row] = rows
  if (row === undefined) throw new Error('expected the outbox to answer with the id of the row')
  return row.id
}

/** What counts here of how a job is defined. */
type Asked = Pick<JobDefinition<never>, 'name' | 'stream' | 'version' | 'schema' | 'unique'>

/** Checks the data as the worker will see it. What a schema says of it may quote it: only the places are told. */
function checkFits(name: string, schema: Schema, json: string): void {
  const checked = schema['~standard'].validate(JSON.parse(json))
  if ('then' in checked) {
    checked.catch(() => {})
    throw new TypeError(`expected the schema of ${name} to be one that answers at once`)
  }
  if (checked.issues === undefined) return
  const places = checked.issues.map(({ path = [] }) => path.map((at) => String(typeof at === 'object' ? at.key : at)))
  const told = places.slice(0, 5).map((path) => path.join('.') || 'its top')
  throw new TypeError(`expected the data of ${name} to fit its schema; it does not at ${told.join(', ')}`)
}
