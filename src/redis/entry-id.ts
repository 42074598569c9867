/**
 * Entry ids. A job's id is the id of its first entry, so its time of publishing can be read from it.
 */

/** Whether a text is a complete entry id, both halves within 64 bits. */
export function isEntryId(text: string): boolean {
  const halves = /^(\d{1,20})-(\d{1,20})$/.exec(text)
  return halves !== null && fits(halves[1] ?? '') && fits(halves[2] ?? '')
}

/** The time part of an id in ms since the epoch. Foreign producers may choose ids far beyond any date. */
export function timeOf(id: string): number {
  return Number(id.slice(0, id.indexOf('-')))
}

/** Rising order of two ids. */
export function compareIds(a: string, b: string): number {
  const [aMs = '', aSeq = ''] = a.split('-')
  const [bMs = '', bSeq = ''] = b.split('-')
  return aMs.length - bMs.length || compareText(aMs, bMs) || aSeq.length - bSeq.length || compareText(aSeq, bSeq)
}

/** Where an id's job is counted: the hour as in 2026-11-21T03 and the minute in it. */
export function tallySlot(id: string): { hour: string; minute: number } {
  const minutes = Math.floor(Math.min(timeOf(id), LAST_DATE_MS) / 60_000)
  const hours = Math.floor(minutes / 60)
  if (hours !== cachedHours) {
    cachedHours = hours
    cachedHour = new Date(hours * 3_600_000).toISOString().slice(0, -11)
  }
  return { hour: cachedHour, minute: minutes % 60 }
}

const LAST_DATE_MS = 8_639_999_999_000_000
let cachedHours = -1
let cachedHour = ''

function fits(half: string): boolean {
  return half.length < 20 || half <= '18446744073709551615'
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
