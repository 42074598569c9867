import type { JobDefinition } from 'millrace'
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
  job: JobDefinition<Data> | string,
  data: Data,
  options: InsertOptions = {},
): Promise<string> {
  const [name, own] = typeof job === 'string' ? [job, undefined] : [job.name, job.stream]
  const stream = options.stream ?? own
  if (stream === undefined) throw new TypeError(`expected \`stream\`: job ${name} does not say where it goes`)
  if (Number.isNaN(options.runAt?.getTime())) throw new TypeError(`expected \`runAt\` of ${name} to be a time`)
  const json = JSON.stringify(data) as string | undefined
  if (json === undefined) throw new TypeError(`expected the data of ${name} to be JSON-able; null is no data`)
  const { rows } = await client.query<{ id: string }>(
    'INSERT INTO outbox (stream, job, data, run_at) VALUES ($1, $2, $3, $4) RETURNING id',
    [stream, name, json, options.runAt ?? null],
  )
  const [row] = rows
  if (row === undefined) throw new Error('expected the outbox to answer with the id of the row')
  return row.id
}
