/**
 * An instant as ms since the epoch: ISO 8601 with its zone (2026-11-21T15:30Z, 2026-11-21T16:30:00+01:00), or the ms themselves.
 * Undefined for anything else: without a zone it would be another time on another machine.
 */
export function parseRunAt(text: string): number | undefined {
  // Fewer digits are seconds, which would be long ago, and so now.
  if (/^\d{12,15}$/.test(text)) return Number(text)
  const [, day, zone] = /^(\d{4}-\d\d-\d\d)T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/.exec(text) ?? []
  if (day === undefined || zone === undefined) return undefined
  // A day that its month does not have is taken for one of the next month otherwise.
  const noon = new Date(`${day}T12:00Z`)
  if (Number.isNaN(noon.getTime()) || !noon.toISOString().startsWith(day)) return undefined
  const ms = Date.parse(text)
  return Number.isNaN(ms) ? undefined : ms
}

/** What `parseRunAt` takes, for messages. */
export const RUN_AT_FORM = 'an instant with its zone, such as 2026-11-21T15:30:00Z, or ms since the epoch'
