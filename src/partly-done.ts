import { MillraceError, type ErrorCode } from './errors.ts'

/**
 * Something long ended with an error after a part of it was done: `done` says which. What was done stays done, and asking
 * for the same again goes on with the rest. `code` and `cause` are of the error that ended it.
 */
export class PartlyDoneError<Done = unknown> extends MillraceError {
  override readonly name = 'PartlyDoneError'
  readonly done: Done

  constructor(message: string, { code, done, cause }: { code: ErrorCode; done: Done; cause: unknown }) {
    super(code, message, { cause })
    this.done = done
  }
}
