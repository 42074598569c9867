import type { Command } from 'commander'
import type { GroupStats, Pause, StreamStats } from '../src/index.ts'
import { commandLine } from './command-line.ts'
import { momentText, plural, printable, spanText } from './output.ts'

/** How groups are told of in words. */

/** One line for each group that nobody seems to work for any more: it keeps the stream from being trimmed. */
export function abandonedLines(command: Command, stream: string, groups: readonly GroupStats[]): string[] {
  return groups
    .filter(({ abandoned }) => abandoned)
    .map((stats) => {
      const { group, lastSeenMs } = stats
      const heard = lastSeenMs === null ? 'has never had a worker' : `has had no worker since ${momentText(lastSeenMs)}`
      const removal = commandLine(command, 'groups', 'remove', stream, group)
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

/** One line for each pause: nothing is begun meanwhile, which otherwise looks like workers that hang. */
export function pausedLines(
  command: Command,
  { stream, paused, groups }: Pick<StreamStats, 'stream' | 'paused' | 'groups'>,
): string[] {
  const resume = (...group: readonly string[]) => commandLine(command, 'resume', stream, ...group)
  const ofGroups = groups.flatMap(({ group, paused: own }) => (own === null ? [] : [{ group, own }]))
  return [
    ...(paused === null ? [] : [`stream ${stream} is paused ${pauseText(paused)}; to go on: ${resume()}`]),
    ...ofGroups.map(
      ({ group, own }) => `group ${group} of ${stream} is paused ${pauseText(own)}; to go on: ${resume(group)}`,
    ),
  ].map(printable)
}

/** `since … until …, by ops@host: deploy`. */
export function pauseText({ sinceMs, untilMs, by, reason }: Pause): string {
  const until = untilMs === null ? '' : ` until ${momentText(untilMs)}`
  const who = by === '' ? '' : ` by ${by}`
  return printable(`since ${momentText(sinceMs)}${until}${who}${reason === '' ? '' : ` (${reason})`}`)
}
