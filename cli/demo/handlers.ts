import { join } from 'node:path'
import { handle } from '../../src/index.ts'
import { look } from './hash.ts'
import { HASH_FILE, type GateOrder, type GateReport } from './job.ts'
import { resultWriter } from './results.ts'

/**
 * The demo's handlers file, loaded by its workers as any other: hashes one file a job.
 *
 * It has a gate. Told to hold, a worker lets jobs begin but not go on, and says which ones it has; so the demo knows of jobs
 * that are running when it kills the worker, however fast the machine is.
 */

const folder = process.env['MILLRACE_DEMO_FOLDER'] ?? '.'
const write = resultWriter(process.env['MILLRACE_DEMO_RESULTS'] ?? '.')
let gate: { readonly opened: Promise<void>; readonly open: () => void } | undefined

process.on('message', ({ kind }: GateOrder) => {
  if (kind === 'demo:hold') {
    gate = newGate()
    tell({ kind: 'demo:closed' })
  }
  if (kind === 'demo:release') {
    gate?.open()
    gate = undefined
  }
})

const handlers = [
  handle(HASH_FILE, async ({ file }, { id, deliveries }) => {
    const startedMs = Date.now()
    if (gate !== undefined) {
      tell({ kind: 'demo:holding', id })
      await gate.opened
    }
    const found = await look(join(folder, file))
    write({ id, file, pid: process.pid, deliveries, startedMs, endedMs: Date.now(), look: found })
  }),
]

export { handlers as default }

function tell(report: GateReport): void {
  process.send?.(report)
}

function newGate(): { opened: Promise<void>; open: () => void } {
  let open = () => {}
  const opened = new Promise<void>((resolve) => (open = resolve))
  return { opened, open }
}
