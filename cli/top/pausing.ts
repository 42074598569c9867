/** Pausing and resuming, as `top` asks for it. What is not there at run time is told of, and nothing else changes. */
export interface PauseControl {
  pause(stream: string, options: { group?: string; reason?: string; by?: string }): Promise<unknown>
  resume(stream: string, options: { group?: string }): Promise<unknown>
}

/** Undefined where this inspector cannot pause. */
export function pauseControlOf(inspector: object): PauseControl | undefined {
  const control = inspector as Partial<PauseControl>
  return typeof control.pause === 'function' && typeof control.resume === 'function'
    ? (inspector as PauseControl)
    : undefined
}

/** Whether a stream or a group is paused, as its stats say. */
export function isPaused(stats: object): boolean {
  const paused: unknown = (stats as { paused?: unknown }).paused
  return paused !== undefined && paused !== null && paused !== false
}
