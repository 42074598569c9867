import { parentPort, workerData } from 'node:worker_threads'
import { messageOf } from '../errors.ts'
import { Connection } from '../redis/connection.ts'
import type { RedisTarget } from '../redis/target.ts'
import { faultOf, faultText } from '../redis/faults.ts'
import type { PulseReply } from '../redis/stream.ts'
import type { HealthNews } from './health-record.ts'
import { HealthServer, type HealthPlace } from './health-server.ts'
import { HealthWatch } from './health-watch.ts'
import { Keeper, type KeeperSettings } from './keeper.ts'
import { LeaseTable } from './table.ts'

/**
 * The thread that a lease keeper lives in, with a connection of its own. The main thread posts `KeeperOrder`s and gets
 * `KeeperNews`; everything about single jobs goes through the shared table instead.
 */

export interface KeeperThreadData {
  readonly target: RedisTarget
  readonly shared: SharedArrayBuffer
  readonly settings: KeeperSettings
  /** Where to answer health checks. */
  readonly place: HealthPlace | undefined
  /** The first thread of its worker: it works only if it can listen, and the worker has just joined its group. */
  readonly isFirst: boolean
}

export type KeeperOrder = { kind: 'follow'; leaseMs: number; pulseMs: number } | { kind: 'stop' }

export type KeeperNews =
  | { kind: 'pulse'; reply: PulseReply }
  | { kind: 'renewed'; count: number }
  | { kind: 'lost'; rows: readonly { slot: number; generation: number }[] }
  | { kind: 'returned'; slots: number }
  | { kind: 'fault'; what: 'renew' | 'pulse'; fault: string; code: string }
  | { kind: 'stopped' }
  | HealthNews

/** Short enough that a silent connection is found and made anew well within a lease, and soon under a long one too. */
export function keeperSocketTimeoutMs(leaseMs: number): number {
  return Math.min(5000, Math.max(500, Math.floor(leaseMs / 4)))
}

function main(port: NonNullable<typeof parentPort>): void {
  const { target, shared, settings, place, isFirst } = workerData as KeeperThreadData
  const tell = (news: KeeperNews) => port.postMessage(news)
  const connection = new Connection(target, {
    role: 'keeper',
    socketTimeoutMs: keeperSocketTimeoutMs(settings.leaseMs),
    reconnectCapMs: settings.pulseMs,
  })
  const table = new LeaseTable(shared)
  const keeper = new Keeper(connection, table, settings, {
    pulse: (reply) => tell({ kind: 'pulse', reply }),
    renewed: (count) => tell({ kind: 'renewed', count }),
    lost: (rows) => tell({ kind: 'lost', rows }),
    returned: (slots) => tell({ kind: 'returned', slots }),
    fault: (error, what) => tell({ kind: 'fault', what, fault: faultText(error), code: faultOf(error).word }),
  })
  const watch = new HealthWatch({ target, table }, { ...settings, hasJustJoined: isFirst }, (condition) =>
    tell({ kind: 'condition', condition }),
  )
  const server = new HealthServer(() => watch.look())
  port.on('message', (order: KeeperOrder) => {
    if (order.kind === 'follow') {
      keeper.follow(order.leaseMs, order.pulseMs)
      watch.follow(order.leaseMs)
      return
    }
    connection.close()
    watch.stop()
    server.close()
    void keeper.stop().then(() => {
      tell({ kind: 'stopped' })
      port.close()
    })
  })
  watch.start()
  if (place === undefined) return keeper.start()
  const failed = (error: unknown) =>
    tell({ kind: 'not-listening', code: (error as NodeJS.ErrnoException).code, message: messageOf(error) })
  const listening = isFirst ? server.listen(place) : server.listenAtLast(place, failed)
  if (!isFirst) keeper.start()
  listening.then((address) => {
    if (address === undefined) return
    tell({ kind: 'listening', address })
    // Not before: where the port is taken the worker does not start, and nothing of it is left in the group.
    if (isFirst) keeper.start()
  }, failed)
}

if (parentPort !== null) main(parentPort)
