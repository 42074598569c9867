import type { GroupStats } from '../src/index.ts'
import { momentText, plural, printable, spanText } from './output.ts'

/** How groups are told of in words. */

/** One line for each group that nobody seems to work for any more: it keeps the stream from being trimmed. */
export function abandonedLines(stream: string, groups: readonly GroupStats[]): string[] {
  return groups
    .filter(({ abandoned }) => abandoned)
    .map((stats) => {
      const { group, lastSeenMs } = stats
      const heard = lastSeenMs === null ? 'has never had a worker' : `has had no worker since ${momentText(lastSeenMs)}`
      const removal = `millrace groups remove ${stream} ${group}`
      return printable(`group ${group} of ${stream} ${heard}; it pins ${pinsText(stats)}; to remove it: ${removal}`)
    })
}

/** What the stream must keep for a group. */
export function pinsText({ pins }: Pick<GroupStats, 'pins'>): string {
  if (pins === null) return 'nothing yet'
  const { entries, seconds } = pins
  const many = entries === null ? 'entries, an unknown number' : plural(entries, 'entry', 'entries')
  return `${many}, the oldest of ${spanText(seconds)} ago`
}
