import { OptionError } from './errors.ts'
import { shown } from './options.ts'

/** What a job may be called. On its own, for the reading of entries needs no more of a job's definition. */
const JOB_NAME = /^[A-Za-z0-9_.:-]{1,100}$/

export function isJobName(name: unknown): name is string {
  return typeof name === 'string' && JOB_NAME.test(name)
}

export function checkJobName(name: unknown): string {
  if (isJobName(name)) return name
  throw new OptionError(`expected a job name of 1 to 100 letters, digits and _ . : - , got ${shown(name)}`, 'ERR_NAME')
}
