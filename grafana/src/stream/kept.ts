import { increase, ofGroups, ofStreams, rate, worker } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

const OF_GROUP = '{{stream}}/{{group}}'

export const kept: RowSpec = {
  title: 'What is kept?',
  panels: [
    series('Dead letters', 'short', {
      width: 8,
      description:
        'Jobs that failed for good. They stay until somebody redrives or purges them, or they are 30 days old. `millrace dead list` groups them by error.',
      queries: [{ expr: ofGroups('millrace_dead_letter_entries'), legend: OF_GROUP }],
      links: [
        look('Why did they die?', 'stream', 'Dead by reason'),
        runbook('What to do?', 'MillraceDeadLetterGrowing'),
      ],
    }),
    series('Oldest dead letter', 's', {
      width: 8,
      description:
        'How long ago the oldest dead letter died. Days mean that nobody looks at them; at their age limit they are removed, and that is counted here as discarded.',
      queries: [{ expr: `time() - ${ofGroups('millrace_dead_letter_oldest_timestamp_seconds')}`, legend: OF_GROUP }],
      links: [look('Were any removed?', 'stream', 'Removed by age')],
    }),
    series('Removed by age', 'short', {
      width: 8,
      description:
        'Dead letters removed because they were past their age, and pending entries that somebody deleted from the stream. The second is work lost by hand: look for XDEL, XTRIM or eviction.',
      queries: [
        {
          expr: `sum by (stream, group) (${increase(worker('millrace_discarded_dead_letters_total'))})`,
          legend: `${OF_GROUP} discarded`,
        },
        {
          expr: `sum by (stream, group) (${increase(worker('millrace_missing_jobs_total'))})`,
          legend: `${OF_GROUP} missing`,
        },
      ],
      links: [look('Is Redis safe?', 'overview', 'Redis safety'), runbook('What to do?', 'MillraceUnsafeRedisConfig')],
    }),
    series('Entries', 'short', {
      width: 8,
      description:
        'Entries in the stream: what waits, what is pending, and the history that retention keeps. A rise without end: a group that settles nothing keeps it from being trimmed.',
      queries: [{ expr: ofStreams('millrace_stream_entries'), legend: '{{stream}}' }],
      links: [
        look('Does retention trim?', 'stream', 'Trimmed'),
        look('Which group is behind?', 'stream', 'Ready jobs'),
      ],
    }),
    series('Trimmed', 'ops', {
      width: 8,
      description:
        'Settled entries that retention removed each second. None on a stream that is older than its retention: something is not settled.',
      queries: [
        { expr: `sum by (stream, group) (${rate(worker('millrace_trimmed_entries_total'))})`, legend: OF_GROUP },
      ],
      links: [look('Is a group abandoned?', 'stream', 'Abandoned groups')],
    }),
    series('Memory of the stream', 'bytes', {
      width: 8,
      description:
        'What the key of the stream takes in Redis. Only where the exporter runs with --memory. Retention by bytes or age keeps it down: `millrace settings`.',
      queries: [{ expr: ofStreams('millrace_stream_memory_bytes'), legend: '{{stream}}' }],
      links: [look('How full is Redis?', 'overview', 'Redis memory')],
    }),
    series('Clock of Redis', 's', {
      width: 24,
      height: 6,
      description:
        'How far the last id of the stream is ahead of the clock of Redis. Not 0 after a jump of its clock: new ids stay in the future until time has caught up, and ages are wrong by as much.',
      queries: [
        { expr: ofStreams('millrace_redis_clock_ahead_seconds'), legend: '{{stream}}' },
        { expr: 'max(millrace:clock_ahead_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [
        runbook('What to do?', 'MillraceRedisClockAhead'),
        look('Is the server all right?', 'overview', 'Redis safety'),
      ],
    }),
  ],
}
