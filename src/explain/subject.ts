import type { Sentence } from './explanation.ts'

/** What the sentences about a group need to know besides its state. */
export interface GroupSubject {
  readonly stream: string
  readonly id: string
  readonly group: string
  readonly publishedMs: number
  readonly nowMs: number
  readonly oldestMs: number | null
}

/** A sentence with which no command goes. */
export function say(text: string): Sentence {
  return { text, command: null }
}
