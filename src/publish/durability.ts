/** When a publish resolves. */
export type Durability =
  /** Redis has the job. */
  | 'redis'
  /** At once: the producer has the job in its buffer, in the memory of this process. What became of it is told by an event. */
  | 'buffered'
  | ReplicaDurability

/** When replicas have the job too, or did not within a time, which the result then says: the job is in Redis either way. */
export interface ReplicaDurability {
  /** How many replicas shall have it, 1 to 100. */
  readonly replicas: number
  /** How long to wait for them once Redis has it, in ms, up to 60000. */
  readonly timeoutMs: number
}
