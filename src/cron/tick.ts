/** Which tick of which recurring schedule a job is of, as its field `cron` tells. */
export interface CronTick {
  /** The schedule's name. */
  readonly name: string
  /** When the tick was due, in ms since the epoch; null of a job that somebody had run out of turn. */
  readonly tickMs: number | null
}

/** `<name> <ms>` or `<name> run`; what is neither was written by somebody else, and is not worth a job. */
export function tickOf(text: string | undefined): CronTick | undefined {
  const [, name, tick] = /^([A-Za-z0-9_.:-]{1,100}) (\d{1,15}|run)$/.exec(text ?? '') ?? []
  return name === undefined ? undefined : { name, tickMs: tick === 'run' ? null : Number(tick) }
}
