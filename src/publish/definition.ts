import { InvalidDataError, OptionError, PublishError } from '../errors.ts'
import type { JobDefinition } from '../job.ts'
import { wholeNumber } from '../options.ts'
import { checkData, checkSchema, placesText, type Schema } from '../schema.ts'
import { checkVersion, MOST_VERSIONS } from '../versions.ts'

/** What the definition of a job says of what is published: which version it is, and what it must be. */

/**
 * Which version a payload is: what the definition of its job says, or what the publish says of a job that is published by its
 * name alone.
 * @throws OptionError where both say something else.
 */
export function versionOf(job: Pick<JobDefinition<never>, 'name' | 'version'> | string, asked: unknown): number {
  const version = checkVersion(asked)
  if (typeof job === 'string') return version
  const { name, version: own = 1 } = job
  if (asked === undefined || version === own) return own
  throw new OptionError(
    `expected \`version\` of job ${name} to be that of its definition, ${own}, got ${version}: ` +
      'publish an older payload by the name of the job',
  )
}

/** The field of a payload's version; none for the first. */
export function versionFields({ version = 1 }: Pick<JobDefinition, 'version'>): readonly string[] {
  return version === 1 ? [] : ['version', String(version)]
}

/**
 * Checks a payload as the worker will see it, which is after JSON: a Date is a text by then, and what is undefined is gone.
 * What it makes of the payload is not published; the worker makes it again.
 * @throws InvalidDataError, or PublishError ERR_SCHEMA if the schema could not tell.
 */
export function checkFits(name: string, schema: Schema, json: string): void {
  const checked = checkData(schema, JSON.parse(json))
  if (checked.kind === 'fits') return
  if (checked.kind === 'invalid') {
    const { issues } = checked
    throw new InvalidDataError(
      `expected the data of ${name} to fit its schema; it does not at ${placesText(issues)}`,
      issues,
    )
  }
  const { why, cause } = checked
  throw new PublishError('ERR_SCHEMA', `the data of ${name} cannot be checked: ${why}`, { published: 'no', cause })
}

/** Written by hand, a definition has not been through defineJob. @throws OptionError */
export function checkKind(name: string, { schema, version }: Kind): void {
  checkSchema(`${name}.schema`, schema)
  wholeNumber(`${name}.version`, version, { or: 1, max: MOST_VERSIONS })
}

/** Whether two definitions of one name publish the same. */
export function isSameKind(a: Kind, b: Kind): boolean {
  return a.schema === b.schema && (a.version ?? 1) === (b.version ?? 1)
}

export type Kind = Pick<JobDefinition, 'schema' | 'version'>
