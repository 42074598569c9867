/** 9999, 12.3k, 2.0M: never wider than six, for where there is no room for all of it. */
export function compactCount(count: number): string {
  if (count < 10_000) return String(Math.round(count))
  for (const [unit, size] of UNITS) {
    const value = count / size
    if (value < 99.95) return `${value.toFixed(1)}${unit}`
    if (value < 999.5) return `${value.toFixed(0)}${unit}`
  }
  return count.toExponential(0)
}

const UNITS = [
  ['k', 1e3],
  ['M', 1e6],
  ['G', 1e9],
] as const
