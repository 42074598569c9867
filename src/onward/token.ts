import { createHash } from 'node:crypto'

/**
 * How long Redis knows that a run has published to another slot: longer than a job waits for its next run. Whatever comes
 * later than that publishes once more.
 */
export const TOKEN_TTL_MS = 7 * 24 * 3_600_000

/** The idempotency token of the publish of a job's run, by the number of its call, from 0: every run of the job has the same. */
export function tokenOf(
  { stream, group }: { readonly stream: string; readonly group: string },
  jobId: string,
  call: number,
): string {
  const run = createHash('sha256').update(`${stream} ${group} ${jobId}`).digest('base64url')
  return `run:${run}:${call}`
}
