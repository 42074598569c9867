import type { Registry } from 'prom-client'

/** The series of a registry as a scraper gets them: parsed from the text, so that what is tested is what is served. */
export class Scrape {
  readonly text: string
  readonly #series = new Map<string, { labels: Record<string, string>; value: number }[]>()

  constructor(text: string) {
    this.text = text
    for (const line of text.split('\n')) {
      const [, name = '', inner, value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
      if (name === '') continue
      const labels: Record<string, string> = {}
      for (const [, key = '', text = ''] of (inner ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[key] = text
      const rows = this.#series.get(name) ?? []
      rows.push({ labels, value: Number(value) })
      this.#series.set(name, rows)
    }
  }

  /** The sum over all series of a name that have these labels; undefined if there is none. */
  sum(name: string, labels: Record<string, string> = {}): number | undefined {
    const found = this.rows(name, labels)
    return found.length === 0 ? undefined : found.reduce((sum, { value }) => sum + value, 0)
  }

  rows(name: string, labels: Record<string, string> = {}): { labels: Record<string, string>; value: number }[] {
    const rows = this.#series.get(name) ?? []
    return rows.filter((row) => Object.entries(labels).every(([key, value]) => row.labels[key] === value))
  }

  /** Values by one label, where they are not 0. */
  by(label: string, name: string, labels: Record<string, string> = {}): Record<string, number> {
    // No prototype: a label's value may be `constructor`.
    const sums = Object.create(null) as Record<string, number>
    for (const row of this.rows(name, labels)) {
      if (row.value === 0) continue
      const key = row.labels[label] ?? ''
      sums[key] = (sums[key] ?? 0) + row.value
    }
    return sums
  }

  /** Every series has a metric of its own: Prometheus refuses a scrape with the same one twice. */
  duplicates(): string[] {
    const seen = new Set<string>()
    const twice: string[] = []
    for (const [name, rows] of this.#series) {
      for (const { labels } of rows) {
        const key = `${name} ${JSON.stringify(Object.entries(labels).sort())}`
        if (seen.has(key)) twice.push(key)
        seen.add(key)
      }
    }
    return twice
  }
}

export async function scrape(registry: Registry): Promise<Scrape> {
  return new Scrape(await registry.metrics())
}
