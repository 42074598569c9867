import { OptionError } from './errors.ts'
import { checkDefined, handle, type Handler, type HandlerFunction, type JobDefinition } from './job.ts'
import { refuseUnknownKeys, shown } from './options.ts'

/** A function for each of these jobs, by name, with the types of that job. */
export type HandlersOf<Jobs extends readonly JobDefinition[]> = {
  readonly [Name in Jobs[number]['name']]: HandlerFunction<
    OutputOf<Extract<Jobs[number], { readonly name: Name }>>,
    ResultOf<Extract<Jobs[number], { readonly name: Name }>>
  >
}

/** What the handler of a job is given: the payload, checked and brought to its newest version. */
export type OutputOf<Job> = Job extends { readonly output?: infer Output } ? Output : never

/** What the handler of a job gives back. */
export type ResultOf<Job> = Job extends { readonly result?: infer Result } ? Result : never

/**
 * Ties a function to each of these jobs: one that is missing is an error of types, and of the call.
 * @throws OptionError where a job has no function, or a function no job; ERR_HANDLERS where two jobs have one name.
 */
export function handleAll<const Jobs extends readonly JobDefinition[]>(
  jobs: Jobs,
  handlers: HandlersOf<Jobs>,
): Handler[] {
  if (!Array.isArray(jobs)) throw new OptionError(`expected a list of jobs, got ${shown(jobs)}`, 'ERR_HANDLERS')
  for (const job of jobs) checkDefined('handleAll', job)
  const names = jobs.map((job: JobDefinition) => job.name)
  const twice = names.find((name, at) => names.indexOf(name) !== at)
  if (twice !== undefined) throw new OptionError(`expected one definition of job ${twice}, got two`, 'ERR_HANDLERS')
  refuseUnknownKeys('handleAll', handlers, names)
  return jobs.map((job: JobDefinition) => {
    const run = Object.hasOwn(handlers, job.name) ? (handlers as Record<string, unknown>)[job.name] : undefined
    if (run === undefined) throw new OptionError(`expected a handler for job ${job.name}, got none`, 'ERR_HANDLERS')
    return handle(job, run as HandlerFunction)
  })
}
