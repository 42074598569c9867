import { onEnd } from './cleanup.ts'
import { type FaultProxy, openProxy } from './network.ts'

export type { FaultProxy, Match } from './network.ts'

/** A proxy before the Redis of this URL, on a free port; stopped at the end of the test. */
export async function startProxy(targetUrl: string): Promise<FaultProxy> {
  const proxy = await openProxy(targetUrl)
  onEnd(() => proxy.stop())
  return proxy
}
