/** A figure of a run that lost or doubled jobs is worth nothing: the measure fails instead. */
export function expectCount(what: string, expected: number, got: number): void {
  if (got !== expected) throw new Error(`expected ${expected} ${what}, got ${got}`)
}
