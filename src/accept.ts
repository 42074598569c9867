import { OptionError } from './errors.ts'
import { shown } from './options.ts'

/**
 * Which jobs a group wants, by name: the others are settled as skipped, unread. A pattern is a name in which `*` stands for any
 * run of characters, none too.
 */
export type Accepts = (job: string) => boolean

const PATTERN = /^[A-Za-z0-9_.:*-]{1,100}$/
const MOST_PATTERNS = 100

/** Undefined where the group wants all. @throws OptionError, also for a handler that would never be called. */
export function resolveAccept(given: unknown, handled: readonly string[]): Accepts | undefined {
  if (given === undefined) return undefined
  if (!Array.isArray(given) || given.length === 0 || given.length > MOST_PATTERNS) {
    const got = Array.isArray(given) ? `${given.length} of them` : shown(given)
    throw new OptionError(`expected \`accept\` to be a list of 1 to ${MOST_PATTERNS} patterns of job names, got ${got}`)
  }
  const matchers = given.map((pattern: unknown, at) => matcherOf(`accept[${at}]`, pattern))
  const accepts: Accepts = (job) => matchers.some((matches) => matches(job))
  const unwanted = handled.find((job) => !accepts(job))
  if (unwanted === undefined) return accepts
  const text = `expected \`accept\` to have a pattern for each job that has a handler, and none is for ${unwanted}`
  throw new OptionError(text, 'ERR_HANDLERS')
}

function matcherOf(where: string, pattern: unknown): Accepts {
  if (typeof pattern !== 'string' || !PATTERN.test(pattern)) {
    const wanted = 'a job name, with * for any run of characters, such as `order.*`'
    throw new OptionError(`expected \`${where}\` to be ${wanted}, got ${shown(pattern)}`)
  }
  const [first = '', ...others] = pattern.split('*')
  const last = others.pop()
  if (last === undefined) return (job) => job === pattern
  // From the left, each part where it first stands: linear, as a regular expression of many stars would not be.
  return (job) => {
    if (!job.startsWith(first)) return false
    let end = first.length
    for (const part of others) {
      const at = job.indexOf(part, end)
      if (at < 0) return false
      end = at + part.length
    }
    return job.length - last.length >= end && job.endsWith(last)
  }
}
