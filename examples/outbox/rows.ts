import type { Pool } from 'pg'

/**
 * The relay's statements. Each is a transaction of its own, so that none is open while Redis is asked, however long that
 * takes: vacuum goes on, and a pooler in transaction mode will do.
 */

/** A row that a relay has taken. */
export interface Row {
  readonly position: string
  readonly id: string
  readonly stream: string
  readonly job: string
  /** JSON text. */
  readonly data: string
  readonly runAt: Date | number | null
  /** Of the payload; null is the first. */
  readonly version: number | null
  /** Whether nobody has tried to publish it before, or Redis certainly did not get it. */
  readonly isFirst: boolean
  /** Whether it may have been published longer ago than Redis remembers tokens. */
  readonly isForgotten: boolean
}

export interface Taking {
  readonly relay: string
  /** Streams that are left alone for now. */
  readonly without: readonly string[]
  readonly maxRows: number
  readonly maxBytes: number
  /** How long the rows are this relay's. */
  readonly leaseMs: number
  /** How long Redis can be relied on to know the token of a row, from when it may have been published first. */
  readonly rememberedMs: number
}

type Database = Pick<Pool, 'query'>

/**
 * Takes the oldest rows that no other relay has; several relays at once take different ones. A relay's own rows are free to
 * it: it takes again only when it is done with them.
 */
export async function takeRows(database: Database, taking: Taking): Promise<Row[]> {
  const { relay, without, maxRows, leaseMs, maxBytes, rememberedMs } = taking
  const { rows } = await database.query<Row>(
    `WITH free AS MATERIALIZED (
       SELECT position, octet_length(data::text) AS bytes FROM outbox
       WHERE (taken_until IS NULL OR taken_until < now() OR relay = $1) AND stream <> ALL ($2::text[])
       ORDER BY position LIMIT $3 FOR UPDATE SKIP LOCKED
     ), sized AS (
       SELECT position, sum(bytes) OVER (ORDER BY position) - bytes AS bytes_before FROM free
     ), taken AS (
       UPDATE outbox SET relay = $1, taken_until = now() + $4::float8 * interval '1 ms',
         maybe_since = coalesce(maybe_since, now())
       FROM sized WHERE outbox.position = sized.position AND bytes_before < $5
       RETURNING outbox.*
     )
     SELECT position, id, stream, job, data::text AS data, run_at AS "runAt", version,
       maybe_since = now() AS "isFirst", maybe_since < now() - $6::float8 * interval '1 ms' AS "isForgotten"
     FROM taken ORDER BY position`,
    [relay, without, maxRows, leaseMs, maxBytes, rememberedMs],
  )
  return rows
}

type Named = Pick<Row, 'position' | 'id'>

/** By number and id: a number alone may be another row's after a failover of PostgreSQL. */
const THESE = '(position, id) IN (SELECT * FROM unnest($1::bigint[], $2::uuid[]))'

function naming(rows: readonly Named[]): [string[], string[]] {
  return [rows.map(({ position }) => position), rows.map(({ id }) => id)]
}

/** Removes rows whose jobs are in Redis, also where another relay has them by now: it will find the same. */
export async function removeRows(database: Database, rows: readonly Named[]): Promise<void> {
  await database.query(`DELETE FROM outbox WHERE ${THESE}`, naming(rows))
}

/** Moves rows to where they wait for somebody to look at them. */
export async function setRowsAside(database: Database, rows: readonly (Named & { reason: string })[]): Promise<void> {
  await database.query(
    `WITH gone AS (DELETE FROM outbox WHERE ${THESE} RETURNING *)
     INSERT INTO outbox_failed (id, stream, job, data, run_at, version, created_at, reason)
     SELECT id, stream, job, data, run_at, version, created_at, reason
     FROM gone JOIN unnest($1::bigint[], $3::text[]) AS why (position, reason) USING (position)`,
    [...naming(rows), rows.map(({ reason }) => reason)],
  )
}

/** Gives rows back. `isUntouched`: the job is certainly not in Redis, by this try or one before. */
export async function releaseRows(
  database: Database,
  relay: string,
  rows: readonly (Named & { isUntouched: boolean })[],
): Promise<void> {
  await database.query(
    `UPDATE outbox SET relay = NULL, taken_until = NULL,
       maybe_since = CASE WHEN position = ANY ($4::bigint[]) THEN NULL ELSE maybe_since END
     WHERE ${THESE} AND relay = $3`,
    [...naming(rows), relay, rows.filter(({ isUntouched }) => isUntouched).map(({ position }) => position)],
  )
}

/** How the outbox stands. */
export interface Backlog {
  /** Rows that wait, counted up to 10 000. */
  readonly rows: number
  /** Age of the oldest of them, in seconds; 0 if there is none. */
  readonly oldestSeconds: number
  /** Rows that were set aside, counted up to 10 000. */
  readonly failed: number
}

/** Cheap enough for every scrape, however much waits. */
export async function readBacklog(database: Database): Promise<Backlog> {
  const { rows } = await database.query<Backlog>(
    `SELECT (SELECT count(*)::int FROM (SELECT FROM outbox LIMIT 10000) AS counted) AS rows,
       coalesce((SELECT greatest(0, extract(epoch FROM now() - created_at))::float8
                 FROM outbox ORDER BY position LIMIT 1), 0) AS "oldestSeconds",
       (SELECT count(*)::int FROM (SELECT FROM outbox_failed LIMIT 10000) AS counted) AS failed`,
  )
  const [backlog] = rows
  if (backlog === undefined) throw new Error('expected the outbox to say how it stands')
  return backlog
}
