import { messageOf } from '../errors.ts'
import { thrownText } from '../thrown.ts'

/** Why data has no JSON. What JSON itself says has nothing of the payload in it; what a getter or a `toJSON` throws may quote it. */
export function jsonFault(error: unknown): string {
  const [line = ''] = messageOf(error).split('\n')
  if (/^(Do not know how to serialize|Converting circular|Maximum call stack)/.test(line)) return line
  return `what reads it threw ${thrownText(error)}; see the cause`
}
