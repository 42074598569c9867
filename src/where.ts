import { Environment, EvaluationError, type ParseResult } from '@marcbachmann/cel-js'
import { OptionError } from './errors.ts'
import { shown } from './options.ts'

/**
 * Filters over jobs, as expressions: `job == "send-receipt" && data.order > 40`. The language is CEL (cel.dev), which can
 * neither loop nor reach anything but what it is given.
 */

/** An expression that is none. `at` says where: the position of the first character that is wrong, from 0. */
export class WhereError extends OptionError {
  readonly expression: string
  readonly at: number

  constructor(expression: string, at: number, why: string) {
    super(`expected \`where\` to be a condition such as data.order > 40: ${why} at character ${at + 1}`)
    this.expression = expression
    this.at = at
  }
}

/** What an expression may ask about. */
export interface WhereSubject {
  readonly id: string
  /** Empty where the entry has no job name. */
  readonly job: string
  /** The payload's text; undefined where there is none. */
  readonly json: string | undefined
  readonly headers: Readonly<Record<string, string>>
}

export interface Where {
  readonly expression: string
  /** Whether a job is meant; a text says why that could not be told: a path that its payload does not have, most often. */
  test(subject: WhereSubject): boolean | string
}

const MOST_CHARACTERS = 10_000

/** @throws WhereError */
export function compileWhere(expression: unknown): Where {
  if (typeof expression !== 'string' || expression.length > MOST_CHARACTERS) {
    throw new OptionError(
      `expected \`where\` to be a condition of up to ${MOST_CHARACTERS} characters, got ${shown(expression)}`,
    )
  }
  const ask = parsed(expression)
  const { valid, type, error } = ask.check()
  if (!valid) throw new WhereError(expression, error?.range?.start ?? 0, whyOf(error))
  if (type !== 'bool' && type !== 'dyn') throw new WhereError(expression, 0, `it gives a ${type} and not true or false`)
  // What is not asked about need not be parsed, and a payload is most of what there is to parse.
  const asksData = /\bdata\b/.test(expression)
  return {
    expression,
    test({ id, job, json, headers }) {
      try {
        const data: unknown = asksData && json !== undefined ? JSON.parse(json) : null
        const told: unknown = ask({ id, job, data, headers })
        return typeof told === 'boolean' ? told : 'it gives neither true nor false'
      } catch (error) {
        return error instanceof SyntaxError ? 'its data is not JSON' : whyOf(error)
      }
    },
  }
}

function parsed(expression: string): ParseResult {
  try {
    return environment().parse(expression)
  } catch (error) {
    throw new WhereError(expression, rangeOf(error), whyOf(error))
  }
}

let made: Environment | undefined

/** JSON knows one kind of number: `data.order + 1` must be as good as `data.order + 1.0`. */
function environment(): Environment {
  if (made !== undefined) return made
  const env = new Environment({ homogeneousAggregateLiterals: false })
  env.registerVariable('id', 'string').registerVariable('job', 'string')
  env.registerVariable('data', 'dyn').registerVariable('headers', 'map')
  const operators: readonly (readonly [string, (a: number, b: number) => number])[] = [
    ['+', (a, b) => a + b],
    ['-', (a, b) => a - b],
    ['*', (a, b) => a * b],
    ['/', (a, b) => a / b],
    ['%', (a, b) => a % b],
  ]
  for (const [sign, compute] of operators) {
    const mixed = (a: unknown, b: unknown) => compute(Number(a), Number(b))
    env.registerOperator(`double ${sign} int`, mixed)
    env.registerOperator(`int ${sign} double`, mixed)
  }
  env.registerOperator('double % double', (a: number, b: number) => a % b)
  made = env
  return env
}

function rangeOf(error: unknown): number {
  const range = error instanceof Error ? (error as { range?: { start?: unknown } }).range : undefined
  return typeof range?.start === 'number' ? range.start : 0
}

/** The library draws the expression below its message: we draw it ourselves, where there is a terminal. */
function whyOf(error: unknown): string {
  const text = error instanceof EvaluationError || error instanceof Error ? error.message : String(error)
  return (text.split('\n')[0] ?? '').replace(/[.:]$/, '').trim()
}
