import { OptionError } from './errors.ts'
import { shown } from './options.ts'

/**
 * The one order of all that is scheduled on a stream: by due time, then by id, then by group, delayed publishes first.
 * Pages follow it by the last one seen, not by counting: others become due and new ones come while somebody reads. Pure.
 */

/** What the order goes by. `score` is the due time as Redis writes it, `inf` of what was set aside. */
export interface Ordered {
  readonly score: string
  readonly id: string
  readonly group: string | null
}

/** Rising order. */
export function compareScheduled(a: Ordered, b: Ordered): number {
  // Two that were set aside have no difference: infinity less infinity is no number.
  const [aMs, bMs] = [scoreMs(a), scoreMs(b)]
  return (aMs === bMs ? 0 : aMs - bMs) || compareText(a.id, b.id) || compareText(a.group ?? '', b.group ?? '')
}

/** When it is due, in ms since the epoch; Infinity if it was set aside. */
export function scoreMs({ score }: { readonly score: string }): number {
  return score === 'inf' ? Infinity : score === '-inf' ? 0 : Number(score)
}

/** The first `most` of two ordered lists. */
export function firstOf<Row extends Ordered>(a: readonly Row[], b: readonly Row[], most: number): Row[] {
  return [...a, ...b].sort(compareScheduled).slice(0, most)
}

/** Where the next page begins, as a text for people to hand back. */
export function cursorOf({ score, id, group }: Ordered): string {
  return `${score}/${id}/${group ?? ''}`
}

/** @throws OptionError if it is no cursor. */
export function parseCursor(text: unknown): Ordered {
  const pattern = /^(inf|-inf|[\d.e+-]{1,40})\/(.{0,1000})\/([A-Za-z0-9_.-]{0,64})$/
  const [, score, id, group] = (typeof text === 'string' && pattern.exec(text)) || []
  if (score === undefined || id === undefined || Number.isNaN(scoreMs({ score }))) {
    throw new OptionError(`expected \`after\` to be what the page before gave as \`next\`, got ${shown(text)}`)
  }
  return { score, id, group: group === undefined || group === '' ? null : group }
}

/** Where to go on in one place. One of the same time and id is still to come in the groups after the last one's. */
export function startIn(group: string | null, after: Ordered): { score: string; id: string; inclusive: boolean } {
  return { score: after.score, id: after.id, inclusive: compareText(group ?? '', after.group ?? '') > 0 }
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
