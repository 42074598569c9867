import { defineJob, type JobDefinition } from '../../src/index.ts'

/** The one job of the demo, shared by the side that publishes and the side that works. */
export const HASH_FILE: JobDefinition<{ file: string }> = defineJob('hash-file', { timeoutMs: false })

/** What the demo tells a worker of its gate. */
export interface GateOrder {
  readonly kind: 'demo:hold' | 'demo:release'
}

/** What a worker tells of its gate: that it is closed, and which job waits at it. */
export type GateReport = { readonly kind: 'demo:closed' } | { readonly kind: 'demo:holding'; readonly id: string }
