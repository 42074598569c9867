import { whenAborted } from '../when-aborted.ts'
import type { Batcher } from './batcher.ts'
import type { Outgoing } from './outgoing.ts'

/**
 * Has a signal take a job back as long as somebody waits for it. Gives what ends that: a signal that lives as long as the
 * process must not collect anything for every publish.
 */
export function withSignal(item: Outgoing, batcher: Batcher, signal: AbortSignal): () => void {
  const end = whenAborted(signal, () => batcher.withdraw(item))
  const { settled, admitted } = item
  item.settled = (...told) => {
    end()
    settled?.(...told)
  }
  if (item.ref !== undefined) {
    item.admitted = (admittedItem) => {
      end()
      admitted?.(admittedItem)
    }
  }
  return end
}
