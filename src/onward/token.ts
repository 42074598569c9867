import { createHash } from 'node:crypto'

/**
 * How long Redis knows that a run has published to another slot: longer than a job waits for its next run. Whatever comes
 * later than that publishes once more.
 */
export const TOKEN_TTL_MS = 7 * 24 * 3_600_000

/**
 * The idempotency token of a publish that a job's run makes, the same in every run of the job: by what it publishes and how many of that
 * came before. The number of the call alone would have a run that leaves one out, or is of newer code, take its next job for that one,
 * and not publish it.
 */
export function tokenOf(
  { stream, group }: { readonly stream: string; readonly group: string },
  jobId: string,
  published: { readonly job: string; readonly before: number },
): string {
  const run = createHash('sha256').update(`${stream} ${group} ${jobId}`).digest('base64url')
  return `run:${run}:${published.job}:${published.before}`
}
