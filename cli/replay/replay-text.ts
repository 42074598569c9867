import type { Replay } from '../../src/index.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { countText, factLines, instantText, momentText, plural } from '../output.ts'
import { targetText } from './asked.ts'
import { endText } from './plan-text.ts'

/** How replays are written for people. */

const COLUMNS: readonly FittingColumn[] = [
  { title: 'id' },
  { title: 'status' },
  { title: 'begun', spare: 1 },
  { title: 'last step', spare: 3 },
  { title: 'from', least: 10 },
  { title: 'into', least: 12 },
  { title: 'copied', align: 'right' },
  { title: 'scanned', align: 'right', spare: 2 },
]

export function replayLines(stdout: NodeJS.WriteStream, replays: readonly Replay[]): string[] {
  return fittingTable(
    stdout,
    COLUMNS,
    replays.map((replay) => [
      replay.id,
      replay.status,
      momentText(replay.createdMs),
      momentText(replay.updatedMs),
      replay.source,
      targetText(replay.target),
      countText(replay.copied),
      countText(replay.scanned),
    ]),
  )
}

export function replayDetailLines(replay: Replay): string[] {
  const { ids, limit, perSecond, unclear, refused } = replay
  const why = unclear.firstWhy === null ? '' : `, the first: ${unclear.firstWhy}`
  const rows: [string, string | null][] = [
    ['id', replay.id],
    ['status', replay.status],
    ['reads', replay.source],
    ['into', `${targetText(replay.target)} of ${replay.target.stream}`],
    ['from', endText(replay.fromId)],
    ['to', endText(replay.toId)],
    ['ids', ids === null ? null : plural(ids, 'named job')],
    ['job', replay.job],
    ['where', replay.where],
    ['limit', limit === null ? null : countText(limit)],
    ['rate', perSecond === null ? null : `${countText(perSecond)}/s`],
    ['copies', replay.includeReplays ? 'of an earlier replay are replayed again' : null],
    ['read up to', endText(replay.cursor)],
    ['scanned', countText(replay.scanned)],
    ['copied', countText(replay.copied)],
    ['skipped', countText(replay.skippedReplays)],
    ['unclear', `${countText(unclear.count)}${why}`],
    ['refused', `${countText(refused.count)}${refused.count > 0 ? `: ${refused.firstIds.join(', ')}` : ''}`],
    ['missing', replay.missing === 0 ? null : countText(replay.missing)],
    ['begun', instantText(replay.createdMs)],
    ['last step', instantText(replay.updatedMs)],
    ['finished', replay.finishedMs === null ? null : instantText(replay.finishedMs)],
  ]
  if (replay.target.group === null) rows[3] = ['into', targetText(replay.target)]
  return factLines(rows.flatMap(([name, value]) => (value === null ? [] : [[name, value]])))
}
