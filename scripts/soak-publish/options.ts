import { parseArgs } from 'node:util'

export interface SoakOptions {
  readonly seed: number
  readonly forMs: number
  readonly mostRssMib: number
}

export const USAGE = `Publishes through faults of every kind, at random, and judges what became of every job.

  npm run soak:publish -- [--seed <n>] [--minutes <n> | --seconds <n>] [--max-rss <MiB>]

  --seed     what is chosen, and when; the same seed is the same run, but for the machine's own timing (default: the clock's)
  --minutes  how long faults are made (default: 1)
  --max-rss  most memory this process may have had (default: 600)

Exit codes: 0 every promise was kept, 1 one was broken, 2 usage.
`

/** Undefined for --help. @throws TypeError for what is no such option. */
export function readOptions(args: readonly string[]): SoakOptions | undefined {
  const text = { type: 'string' } as const
  const options = {
    seed: text,
    minutes: text,
    seconds: text,
    'max-rss': text,
    help: { type: 'boolean', short: 'h' },
  } as const
  const { values } = parseArgs({ args: [...args], options, allowPositionals: false })
  if (values.help === true) return undefined
  const seconds =
    values.seconds === undefined ? 60 * above0('minutes', values.minutes ?? '1') : above0('seconds', values.seconds)
  return {
    seed: values.seed === undefined ? Date.now() % 1_000_000 : wholeNumber('seed', values.seed),
    forMs: seconds * 1000,
    mostRssMib: above0('max-rss', values['max-rss'] ?? '600'),
  }
}

function above0(name: string, text: string): number {
  const value = Number(text)
  if (text.trim() !== '' && value > 0 && value < 1e6) return value
  throw new TypeError(`expected --${name} to be a number above 0, got ${text}`)
}

function wholeNumber(name: string, text: string): number {
  if (/^\d{1,10}$/.test(text)) return Number(text)
  throw new TypeError(`expected --${name} to be a whole number, got ${text}`)
}
