import { messageOf } from '../errors.ts'

/**
 * What an error of the client means for the command that met it:
 *
 * - `refused`: Redis answered that it will not now (out of memory, loading, read-only …). Nothing was executed; try later.
 * - `lost-group`: the stream or the group is gone; nothing was executed; join again.
 * - `fatal`: Redis will not do this however often it is asked (password, permission, a key of another type).
 * - `not-sent`: the command never left this process.
 * - `unknown`: the connection went before the answer came. It may or may not have been executed.
 */
export interface Fault {
  readonly kind: 'refused' | 'lost-group' | 'fatal' | 'not-sent' | 'unknown'
  /** The first word of Redis's answer, or of what happened to the connection. */
  readonly word: string
}

const LATER = new Set(
  'OOM READONLY LOADING MASTERDOWN NOREPLICAS MISCONF BUSY CLUSTERDOWN TRYAGAIN NOSCRIPT UNBLOCKED MOVED ASK'.split(
    ' ',
  ),
)

export function faultOf(error: unknown): Fault {
  const message = error instanceof Error ? error.message : String(error)
  if (!(error instanceof Error) || error.name !== 'ReplyError') {
    const notSent = message.includes("isn't writeable") || message.includes('enableOfflineQueue')
    return notSent ? { kind: 'not-sent', word: 'closed' } : { kind: 'unknown', word: 'closed' }
  }
  // Before 7.0 an error inside a script is "ERR Error running script (…): @user_script: 3: -OOM command not allowed", and one
  // that the script returns itself "@user_script: 3: -OOM command not allowed".
  const word =
    /^ERR Error running script.*?-([A-Z]+) /.exec(message)?.[1] ??
    /^(?:@user_script: ?\d+: )?-?([A-Z]+)/.exec(message)?.[1] ??
    'ERR'
  const gone = message.includes('key no longer exists') || message.includes('no such key')
  if (word === 'NOGROUP' || gone) return { kind: 'lost-group', word }
  if (message.includes('max number of clients')) return { kind: 'refused', word }
  return LATER.has(word) ? { kind: 'refused', word } : { kind: 'fatal', word }
}

/**
 * The client hangs the command with its arguments, payload and all, on its errors. They must not reach a log, nor a user who
 * logs the `cause` of an error of ours. Some texts hold arguments too: a server or a proxy that lacks a command quotes them,
 * of AUTH also, and a URL that was given for a host name comes back with its password.
 */
export function withoutArguments<Thrown>(error: Thrown): Thrown {
  if (!(error instanceof Error)) return error
  const carrier = error as Error & { command?: { name?: string; args?: unknown } }
  if (carrier.command !== undefined) carrier.command = { name: carrier.command.name ?? '' }
  const { message } = error
  const told = withoutSecrets(message)
  if (told !== message) {
    error.message = told
    error.stack = error.stack?.replace(message, () => told) ?? ''
  }
  return error
}

function withoutSecrets(text: string): string {
  return text.replace(/,? with args beginning with:.*/s, '').replace(/\/\/[^/\s]*@/g, '//***@')
}

/** A fault as a log or an error tells it. The client's own words for a lost connection speak of its options. */
export function faultText(error: unknown): string {
  if (error instanceof Error && error.name === 'MaxRetriesPerRequestError') return 'the connection to Redis was lost'
  return withoutSecrets(messageOf(error))
}
