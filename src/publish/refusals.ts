import type { ErrorCode } from '../errors.ts'

/** Why an item is not in Redis, though its batch is, by its answer; see the publish scripts. */
export function refusalOf(answer: `!${string}` | undefined): { why: string; code?: ErrorCode; cause?: Error } {
  if (answer === '!groups') {
    const why = 'several groups read the stream, and its `unique` does not say which `group` settles it'
    return { code: 'ERR_UNIQUE_GROUP', why }
  }
  if (answer === '!full') {
    const why =
      'what it is to replace cannot be cancelled, for too many jobs are noted as cancelled already, each for 7 days'
    return { code: 'ERR_CANCELLED_FULL', why }
  }
  return { why: 'Redis refused to append it', cause: new Error('XADD failed') }
}
