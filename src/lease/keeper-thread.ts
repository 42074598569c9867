import { parentPort, workerData } from 'node:worker_threads'
import { Connection } from '../redis/connection.ts'
import type { RedisTarget } from '../redis/target.ts'
import { faultOf, faultText } from '../redis/faults.ts'
import type { PulseReply } from '../redis/stream.ts'
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
}

export type KeeperOrder = { kind: 'follow'; leaseMs: number; pulseMs: number } | { kind: 'stop' }

export type KeeperNews =
  | { kind: 'pulse'; reply: PulseReply }
  | { kind: 'renewed'; count: number }
  | { kind: 'lost'; rows: readonly { slot: number; generation: number }[] }
  | { kind: 'returned'; slots: number }
  | { kind: 'fault'; what: 'renew' | 'pulse'; fault: string; code: string }
  | { kind: 'stopped' }

/** Short enough that a silent connection is found and made anew well within a lease. */
export function keeperSocketTimeoutMs(leaseMs: number): number {
  return Math.max(500, Math.floor(leaseMs / 4))
}

function main(port: NonNullable<typeof parentPort>): void {
  const { target, shared, settings } = workerData as KeeperThreadData
  const tell = (news: KeeperNews) => port.postMessage(news)
  const connection = new Connection(target, {
    role: 'keeper',
    socketTimeoutMs: keeperSocketTimeoutMs(settings.leaseMs),
    reconnectCapMs: settings.pulseMs,
  })
  const keeper = new Keeper(connection, new LeaseTable(shared), settings, {
    pulse: (reply) => tell({ kind: 'pulse', reply }),
    renewed: (count) => tell({ kind: 'renewed', count }),
    lost: (rows) => tell({ kind: 'lost', rows }),
    returned: (slots) => tell({ kind: 'returned', slots }),
    fault: (error, what) => tell({ kind: 'fault', what, fault: faultText(error), code: faultOf(error).word }),
  })
  port.on('message', (order: KeeperOrder) => {
    if (order.kind === 'follow') {
      keeper.follow(order.leaseMs, order.pulseMs)
      return
    }
    connection.close()
    void keeper.stop().then(() => {
      tell({ kind: 'stopped' })
      port.close()
    })
  })
  keeper.start()
}

if (parentPort !== null) main(parentPort)
