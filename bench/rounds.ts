import { type PrivateRedis, startRedis } from '../cli/redis-server.ts'
import { messageOf } from '../src/errors.ts'
import type { ContenderName } from './contenders/contender.ts'
import type { Bench, Group, Measure } from './measures/measure.ts'
import type { Failure, Result } from './results.ts'
import { SubjectProcess } from './subject-process.ts'
import type { Task } from './steps/task.ts'

/** One measurement that is due. */
export interface Cell {
  readonly group: Group
  readonly measure: Measure
  readonly contender: ContenderName
  readonly round: number
  readonly rounds: number
}

export interface RoundsOptions {
  readonly rounds: number | undefined
  /** Contenders that are left out. */
  readonly without: ReadonlySet<ContenderName>
  readonly profileFolder: string | undefined
  readonly signal: AbortSignal
}

export interface RoundsEvents {
  readonly begun: (cell: Cell) => void
  readonly measured: (cell: Cell, result: Result) => void
  readonly failed: (cell: Cell, failure: Failure) => void
}

/** Measures all groups. A measurement that fails is told, and the rest goes on. */
export async function runRounds(
  groups: readonly Group[],
  options: RoundsOptions,
  events: RoundsEvents,
): Promise<{ results: Result[]; failures: Failure[] }> {
  const results: Result[] = []
  const failures: Failure[] = []
  for (const cell of groups.flatMap((group) => cellsOf(group, options))) {
    options.signal.throwIfAborted()
    const where = { measure: cell.measure.name, contender: cell.contender, round: cell.round }
    events.begun(cell)
    try {
      const result = { ...where, figures: await measure(cell, options) }
      results.push(result)
      events.measured(cell, result)
    } catch (error) {
      options.signal.throwIfAborted()
      const failure = { ...where, message: messageOf(error) }
      failures.push(failure)
      events.failed(cell, failure)
    }
  }
  return { results, failures }
}

/**
 * Every round has every contender of every measure of the group, so that what changes on the machine meanwhile hits all; and
 * each round begins one further on, so that none is always the one after the same other one.
 */
export function cellsOf(
  group: Group,
  { rounds = group.rounds, without }: Pick<RoundsOptions, 'rounds' | 'without'>,
): Cell[] {
  const inOrder = group.measures.flatMap((measure) =>
    measure.contenders.filter((name) => !without.has(name)).map((contender) => ({ group, measure, contender })),
  )
  const cells: Cell[] = []
  for (let round = 1; round <= rounds; round++) {
    const first = (round - 1) % Math.max(1, inOrder.length)
    const rotated = [...inOrder.slice(first), ...inOrder.slice(0, first)]
    const turned = round % 2 === 0 ? rotated.reverse() : rotated
    cells.push(...turned.map((cell) => ({ ...cell, round, rounds })))
  }
  return cells
}

/** On a server that was just started, so that nothing of anyone else is in it. */
async function measure(
  { measure, contender }: Cell,
  { signal, profileFolder }: RoundsOptions,
): Promise<Result['figures']> {
  const redis = await startRedis({ args: measure.redisArgs ?? [] })
  try {
    return await measure.measure(
      benchOf(redis, contender, signal, contender === 'millrace' ? profileFolder : undefined),
    )
  } finally {
    await redis.stop()
  }
}

function benchOf(
  redis: PrivateRedis,
  contender: ContenderName,
  signal: AbortSignal,
  profileFolder: string | undefined,
): Bench {
  const start = (task: Task) => new SubjectProcess({ url: redis.url, contender, signal, profileFolder }, task)
  const run = async (task: Task) => {
    signal.throwIfAborted()
    const subject = start(task)
    try {
      return await subject.figures()
    } finally {
      await subject.kill()
    }
  }
  return { contender, redis, signal, start, run }
}
