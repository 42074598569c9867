import { Inspector } from '../../src/index.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { openMillrace } from './millrace.ts'
import { GROUP, STREAM } from './stream.ts'
import type { Timed } from './timed.ts'

/** millrace's schedules, with their defaults. */
export async function openMillraceTimed(url: string): Promise<Timed> {
  const contender = openMillrace(url)
  const inspector = new Inspector({ redis: url })
  // A schedule is of a stream that is there.
  await inspector.groups.create(STREAM, GROUP, { startAt: 'oldest' })
  return {
    setDaily: (name, at) =>
      inspector.cron.set(STREAM, { name, job: JOB_NAME, data: PAYLOAD, at: dailyAt(at), zone: 'UTC' }),
    worker: (setup) => contender.worker(setup),
    close: async () => {
      inspector.close()
      await contender.close()
    },
  }
}

/** As cron writes it, with seconds. */
function dailyAt(at: Date): string {
  return `${at.getUTCSeconds()} ${at.getUTCMinutes()} ${at.getUTCHours()} * * *`
}
