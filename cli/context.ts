/** What every command gets from the outside world: commands read no `process` of their own, so tests can stand in. */
export interface CliContext {
  /** The URL of Redis: `--redis`, else MILLRACE_REDIS_URL, else REDIS_URL, else this machine. */
  redis: () => string
  env: NodeJS.ProcessEnv
  stdin: NodeJS.ReadStream
  /** Data, and nothing else. */
  stdout: NodeJS.WriteStream
  /** Messages and progress. */
  stderr: NodeJS.WriteStream
  /** Writes one message line to stderr. */
  say(line: string): void
  /** Sets the exit code; the process ends when nothing is left to do. */
  finish(code: number): void
  /** Ends the process at once: for a second Ctrl-C, and nothing else. */
  exitNow(code: number): void
}
