import type { Diagnosis, DoctorFinding, FindingLevel } from '../../src/index.ts'
import { plural, printable, shortName, styled, type Style } from '../output.ts'
import { wrapped } from '../paragraphs.ts'

/** A diagnosis as people read it: by level, the worst first, each finding with what to do. */

const TITLES: Readonly<Record<FindingLevel, string>> = {
  fail: 'Failed',
  warn: 'Warnings',
  unknown: 'Not known',
  note: 'Notes',
  ok: 'Fine',
}
const STYLES: Readonly<Record<FindingLevel, Style>> = {
  fail: 'red',
  warn: 'yellow',
  unknown: 'bold',
  note: 'bold',
  ok: 'green',
}

export interface DoctorShown {
  readonly stdout: NodeJS.WriteStream
  readonly columns: number
}

export function diagnosisLines({ findings }: Diagnosis, shown: DoctorShown): string[] {
  const lines: string[] = []
  for (const level of ['fail', 'warn', 'unknown', 'note', 'ok'] as const) {
    const own = findings.filter((finding) => finding.level === level)
    if (own.length === 0) continue
    lines.push(styled(shown.stdout, STYLES[level], TITLES[level]))
    for (const finding of own) lines.push(...(level === 'ok' ? fineLines : findingLines)(finding, shown))
    lines.push('')
  }
  return lines
}

/** `2 failed, 1 warning, 3 notes: Redis 7.0.15, 4 streams.` */
export function summaryLine({ findings, server, streams }: Diagnosis): string {
  const count = (level: FindingLevel) => findings.filter((finding) => finding.level === level).length
  const parts = [
    `${count('fail')} failed`,
    plural(count('warn'), 'warning'),
    ...(count('unknown') > 0 ? [`${count('unknown')} not known`] : []),
    plural(count('note'), 'note'),
  ]
  const name = server === null ? 'a Redis of unknown version' : `${NAMES[server.software]} ${server.version}`
  return printable(`${parts.join(', ')}; ${name}, ${plural(streams, 'stream')}`)
}

const NAMES = { redis: 'Redis', valkey: 'Valkey' } as const

function fineLines({ check, where, found }: DoctorFinding, { columns }: DoctorShown): string[] {
  return paragraph(`${headOf(check, where)}: ${found}`, columns)
}

function findingLines({ check, where, found, why, fix }: DoctorFinding, { columns }: DoctorShown): string[] {
  return [
    ...paragraph(`${headOf(check, where)}: ${found}.`, columns),
    ...paragraph(why, columns, '    '),
    ...fixLines(fix, columns),
  ]
}

function headOf(check: string, { stream, group }: DoctorFinding['where']): string {
  const named = [stream, group].filter((part) => part !== undefined).map(shortName)
  return [check, named.join('/')].filter(Boolean).join(' ')
}

/** A command is there to be copied: it stands on a line of its own where it would be broken. */
function fixLines(fix: string, columns: number): string[] {
  const text = `fix: ${printable(fix)}`
  if (text.length + 4 <= columns) return [`    ${text}`]
  return /^millrace [^;,:]*$/.test(fix) ? ['    fix:', `      ${printable(fix)}`] : paragraph(text, columns, '    ')
}

const HEAD = '  '

function paragraph(text: string, columns: number, lead = HEAD): string[] {
  const words = printable(text).split(' ')
  return wrapped(words, columns - lead.length, lead === HEAD ? '  ' : '').map((line) => `${lead}${line}`)
}
