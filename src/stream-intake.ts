import type { Dispatcher } from './dispatcher.ts'
import type { Batch, Intake } from './intake.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import type { Client } from './redis/connection.ts'
import type { Member } from './redis/member.ts'
import { readNew } from './redis/stream.ts'

/** What is read for one stream: the stream and the group's redelivery stream, in one blocking read. */
export class StreamIntake implements Intake {
  readonly #member: Member
  readonly #dispatcher: Dispatcher
  readonly #numbers: WorkerNumbers

  constructor(member: Member, { dispatcher, numbers }: { dispatcher: Dispatcher; numbers: WorkerNumbers }) {
    this.#member = member
    this.#dispatcher = dispatcher
    this.#numbers = numbers
  }

  get room(): number {
    return this.#dispatcher.fetchRoom
  }

  get isPaused(): boolean {
    return this.#dispatcher.isPaused
  }

  roomBeside(coming: number): number {
    return this.#dispatcher.roomBeside(coming)
  }

  changed(timeoutMs: number): Promise<void> {
    return this.#dispatcher.changed(timeoutMs)
  }

  async read(client: Client, asked: { count: number; blockMs: number }): Promise<Batch> {
    const entries = await readNew(client, this.#member, asked)
    const size = entries[0].length + entries[1].length
    countPoll(this.#numbers, size)
    return { size, entries, take: () => this.#dispatcher.fetched(entries) }
  }

  failed(): void {
    this.#numbers.polls.error += 1
  }
}

/** A read that brought so many. */
export function countPoll({ polls, pollBatch }: WorkerNumbers, size: number): void {
  if (size === 0) {
    polls.empty += 1
    return
  }
  polls.jobs += 1
  pollBatch.observe(size)
}
