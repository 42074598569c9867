import { RedisError } from '../errors.ts'
import { faultOf, type Fault } from './faults.ts'

/** What the connections of one role have been through: shared by all of them that are measured together. */
export class ConnectionNumbers {
  readonly role: string
  reconnects = 0
  /** Errors by code: the first word of Redis's answer, or what happened to the connection. Only codes that are listed. */
  readonly errors = new Map<string, number>(ERROR_CODES.map((code) => [code, 0]))
  /** Whether each open connection is ready. */
  readonly open = new Set<{ readonly isReady: boolean }>()

  constructor(role: string) {
    this.role = role
  }

  /** Counts an error of a command or of the connection, and says what it means. */
  count(error: unknown): Fault {
    const fault = faultOf(error)
    // A RedisError tells of a connection that is not ready: what keeps it from being ready was counted when it happened.
    if (!(error instanceof RedisError)) this.countCode(fault.word)
    return fault
  }

  countCode(word: string): void {
    const code = this.errors.has(word) ? word : 'other'
    this.errors.set(code, (this.errors.get(code) ?? 0) + 1)
  }
}

/** Labels must be bounded: Redis and its modules may answer with any word. */
export const ERROR_CODES: readonly string[] = [
  ...['OOM', 'MISCONF', 'READONLY', 'LOADING', 'BUSY', 'NOGROUP', 'NOREPLICAS', 'MASTERDOWN', 'CLUSTERDOWN', 'MOVED'],
  ...['ASK', 'TRYAGAIN', 'NOPERM', 'WRONGPASS', 'NOAUTH', 'UNBLOCKED', 'WRONGTYPE', 'closed', 'other'],
]
