import { jsonLine } from '../output.ts'
import { stateCode, verdictLine } from './verdict.ts'

/**
 * A check that could not be made: for a monitor that is UNKNOWN, whatever the reason. A wrong option ends elsewhere with 2,
 * which a monitor takes for CRITICAL and wakes somebody.
 */
export function failedCheck(words: readonly string[], message: string): { line: string; code: number } {
  const [, what = ''] = words
  const isJson = words.includes('--json')
  // Without a word behind it the parser prints its help, and has nothing else to say.
  const text = message === '(outputHelp)' ? 'say what to check: lag, pending or dead' : message.replace(/^error: /, '')
  const line = isJson
    ? jsonLine({ check: what, state: 'unknown', message: text })
    : `${verdictLine(what, 'unknown', text)}\n`
  return { line, code: stateCode('unknown') }
}
