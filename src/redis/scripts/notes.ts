import { script } from './script.ts'

/** How long notes are kept after they were last written: as long as a job may wait to be redriven after a weekend. */
const NOTES_TTL_MS = 7 * 24 * 3_600_000
export const MOST_LOG_LINES = 100
export const MOST_LOG_BYTES = 16 * 1024

/**
 * Writes what handlers say of their jobs: progress, log lines behind those that are there, a checkpoint. Fenced by (consumer, delivery
 * count) in the step that writes: a run whose lease was lost must not overwrite what the next one goes on from. Sent again it
 * changes nothing but a line that is there twice.
 *
 * Of the log the last lines stay, and what was dropped is counted. Under OOM it is refused: notes are not worth what settling is.
 * At most 50 jobs of 17 KiB, or one checkpoint, a call. Returns 'ok' | 'lost' for each.
 */
export const writeNotes = script(
  'writeNotes',
  `
  -- KEYS source notes... | ARGV group me atMs, then per job: entryId deliveries progress lines('' = none) dropped checkpoint('' = none)
  local source, group, me, at = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
  local function logged(notes, lines, dropped)
    local kept = redis.call('HMGET', notes, 'log', 'dropped')
    local text = kept[1] and kept[1] ~= '' and (kept[1] .. '\\n' .. lines) or lines
    local starts = {1}
    for place in text:gmatch('()\\n') do starts[#starts + 1] = place + 1 end
    local first = math.max(1, #starts - ${MOST_LOG_LINES} + 1)
    while first < #starts and #text - starts[first] + 1 > ${MOST_LOG_BYTES} do first = first + 1 end
    local gone = (tonumber(kept[2] or '') or 0) + dropped + first - 1
    redis.call('HSET', notes, 'log', text:sub(starts[first]), 'dropped', string.format('%.0f', gone))
  end
  local told = {}
  for i = 2, #KEYS do
    local notes, a = KEYS[i], 4 + (i - 2) * 6
    local pending = redis.call('XPENDING', source, group, ARGV[a], ARGV[a], 1)[1]
    if not pending or pending[2] ~= me or pending[4] ~= tonumber(ARGV[a + 1]) then
      told[#told + 1] = 'lost'
    else
      local progress, lines, dropped, checkpoint = ARGV[a + 2], ARGV[a + 3], tonumber(ARGV[a + 4]), ARGV[a + 5]
      if progress ~= '' then redis.call('HSET', notes, 'progress', progress, 'progress-at', at) end
      if lines ~= '' then logged(notes, lines, dropped) end
      if checkpoint ~= '' then redis.call('HSET', notes, 'checkpoint', checkpoint, 'checkpoint-at', at) end
      redis.call('PEXPIRE', notes, ${NOTES_TTL_MS})
      told[#told + 1] = 'ok'
    end
  end
  return told`,
)
