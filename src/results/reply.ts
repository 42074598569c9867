/**
 * The field `reply` of an entry: somebody wants to know how the job ends, and is told where it says. Taken for hostile like all
 * fields: one that cannot be read is as good as none, and never stops a job.
 */
export interface Reply {
  /** The producer that waits. */
  readonly to: string
  /** The group whose end of the job counts; undefined for the first one that ends it. */
  readonly group: string | undefined
  /** How long the answer is kept, in ms. */
  readonly ttlMs: number
}

/** How long an answer is kept unless the publish says otherwise: an hour. */
export const RESULT_TTL_MS = 3_600_000
export const MOST_RESULT_TTL_MS = 7 * 24 * 3_600_000

/** As it stands in the entry; `*` is any group, which none can be named. */
export function replyText({ to, group = '*', ttlMs }: Reply): string {
  return `${to} ${group} ${ttlMs}`
}

/** Reads the field; the same pattern as in scripts/reply.ts. */
export function replyOf(text: string | undefined): Reply | undefined {
  if (text === undefined) return undefined
  const [, to, group, ttlMs] = /^([A-Za-z0-9_-]{1,40}) (\*|[A-Za-z0-9_.-]{1,64}) (\d{1,10})$/.exec(text) ?? []
  if (to === undefined) return undefined
  return { to, group: group === '*' ? undefined : group, ttlMs: Number(ttlMs) }
}
