import type { CronWritten } from '../redis/cron.ts'
import type { CheckedSchedule } from './schedule.ts'
import { nextTick } from './timing.ts'

/** Most schedules of a stream: more are a loop that makes new names. */
export const MOST_SCHEDULES = 100_000

/** A schedule in the words that Redis keeps it in. It begins with the first tick from now on: what was before was nobody's. */
export function writtenOf({ name, timing, rules, fields }: CheckedSchedule, nowMs: number): CronWritten {
  return {
    name,
    timing: JSON.stringify(timing),
    rules: JSON.stringify(rules),
    job: JSON.stringify(fields),
    nextMs: nextTick(timing, Math.floor(nowMs)),
  }
}
