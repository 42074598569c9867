import { wrongValue } from './exit.ts'

const UNIT_BYTES: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  tb: 1000 ** 4,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
  tib: 1024 ** 4,
}

/** A size as people write it, in bytes: 512MiB, 1.5GiB, 2GB, 1000000. @throws CliError that says what was expected. */
export function parseSize(option: string, text: string, { min = 1 }: { min?: number } = {}): number {
  const [, amount = '', unit = ''] = /^(\d{1,15}(?:\.\d{1,3})?)([a-z]{0,3})$/i.exec(text) ?? []
  const bytes = Math.round(Number(amount) * (UNIT_BYTES[unit.toLowerCase()] ?? NaN))
  if (amount !== '' && bytes >= min && bytes < 1e15) return bytes
  throw wrongValue(option, 'a size such as 500MB, 512MiB or 2GiB', text)
}

/** A size at a glance: 0 B, 12.3 KiB, 1.0 GiB. */
export function sizeText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let [value, at] = [bytes, 0]
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024
    at += 1
  }
  return `${at === 0 ? value : value.toFixed(1)} ${units[at] ?? ''}`
}

/** A size to the byte, as it can be given again: 1GiB, 1500000. */
export function exactSize(bytes: number): string {
  for (const [unit, name] of [
    [1024 ** 3, 'GiB'],
    [1024 ** 2, 'MiB'],
    [1024, 'KiB'],
  ] as const) {
    if (bytes > 0 && bytes % unit === 0) return `${bytes / unit}${name}`
  }
  return String(bytes)
}
