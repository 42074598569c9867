/** The known word that a mistyped one was meant to be, if one is close enough: at most a third of its letters are wrong. */
export function similarTo(word: string, known: readonly string[]): string | undefined {
  const most = Math.max(2, Math.floor(word.length / 3))
  const near = known.map((candidate) => ({ candidate, distance: distance(word.toLowerCase(), candidate) }))
  const [nearest] = near.sort((a, b) => a.distance - b.distance)
  return nearest !== undefined && nearest.distance <= most ? nearest.candidate : undefined
}

/** Letters to add, to take out or to replace. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (letter === b[j - 1] ? 0 : 1)
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, replaced))
    }
    row = next
  }
  return row[b.length] ?? 0
}
