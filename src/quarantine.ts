/** Workers that a job may take down before it is begun in quarantine. */
const QUARANTINE_AFTER = 2

/** Whether a job may be what took its workers down: so many deliveries were begun before, and none had an outcome. */
export function isSuspect(deliveries: number, maxDeliveries: number): boolean {
  return deliveries >= Math.max(1, Math.min(QUARANTINE_AFTER, maxDeliveries - 1))
}
