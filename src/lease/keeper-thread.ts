import { parentPort, workerData } from 'node:worker_threads'
import { messageOf } from '../errors.ts'
import { Connection } from '../redis/connection.ts'
import type { RedisTarget } from '../redis/target.ts'
import { faultOf, faultText } from '../redis/faults.ts'
import type { Permit } from '../redis/limiting.ts'
import type { PulseReply } from '../redis/stream.ts'
import type { HealthNews } from './health-record.ts'
import { HealthServer, type HealthPlace } from './health-server.ts'
import { HealthWatch } from './health-watch.ts'
import { Keeper, type KeeperSettings, type KeeperTask } from './keeper.ts'
import { KeptPermits, type PermitChange } from './kept-permits.ts'
import { Leases } from './leases.ts'
import { LeaseTable } from './table.ts'

/**
 * The thread that a lease keeper lives in, with a connection of its own. The main thread posts `KeeperOrder`s and gets
 * `KeeperNews`; everything about single jobs goes through the shared table instead.
 */

export interface KeeperThreadLane {
  readonly shared: SharedArrayBuffer
  readonly settings: KeeperSettings
  /** What jobs hold of limits now; undefined where the worker has no limits. */
  readonly permits: readonly Permit[] | undefined
}

export interface KeeperThreadData {
  readonly target: RedisTarget
  /** By stream. The first one's table holds the signs of life of the whole worker. */
  readonly lanes: readonly KeeperThreadLane[]
  /** Where to answer health checks. */
  readonly place: HealthPlace | undefined
  /** The first thread of its worker: it works only if it can listen, and the worker has just joined its group. */
  readonly isFirst: boolean
}

export type KeeperOrder =
  | { kind: 'follow'; lane: number; leaseMs: number; pulseMs: number }
  | { kind: 'permits'; lane: number; change: PermitChange }
  | { kind: 'stop' }

export type KeeperNews =
  | { kind: 'pulse'; lane: number; reply: PulseReply }
  | { kind: 'renewed'; lane: number; count: number }
  | { kind: 'lost'; lane: number; rows: readonly { slot: number; generation: number }[] }
  | { kind: 'returned'; lane: number; slots: number }
  | { kind: 'permits-lost'; lane: number; permits: readonly Permit[] }
  | { kind: 'fault'; lane: number; what: KeeperTask; fault: string; code: string }
  | { kind: 'stopped' }
  | HealthNews

/** Short enough that a silent connection is found and made anew well within a lease, and soon under a long one too. */
export function keeperSocketTimeoutMs(leaseMs: number): number {
  return Math.min(5000, Math.max(500, Math.floor(leaseMs / 4)))
}

function main(port: NonNullable<typeof parentPort>): void {
  const { target, lanes, place, isFirst } = workerData as KeeperThreadData
  const tell = (news: KeeperNews) => port.postMessage(news)
  const all = lanes.map(({ settings }) => settings)
  const connection = new Connection(target, {
    role: 'keeper',
    socketTimeoutMs: keeperSocketTimeoutMs(Math.min(...all.map(({ leaseMs }) => leaseMs))),
    reconnectCapMs: Math.min(...all.map(({ pulseMs }) => pulseMs)),
  })
  const tables = lanes.map(({ shared }) => new LeaseTable(shared))
  const [table] = tables
  if (table === undefined) return
  const { vitals } = table
  const permits = lanes.map((lane) => (lane.permits === undefined ? undefined : new KeptPermits(lane.permits)))
  const keepers = tables.map((own, lane) => {
    return new Keeper({ connection, vitals, permits: permits[lane] }, own, all[lane] as KeeperSettings, {
      pulse: (reply) => tell({ kind: 'pulse', lane, reply }),
      renewed: (count) => tell({ kind: 'renewed', lane, count }),
      lost: (rows) => tell({ kind: 'lost', lane, rows }),
      returned: (slots) => tell({ kind: 'returned', lane, slots }),
      permitsLost: (gone) => tell({ kind: 'permits-lost', lane, permits: gone }),
      fault: (error, what) => tell({ kind: 'fault', lane, what, fault: faultText(error), code: faultOf(error).word }),
    })
  })
  const startKeepers = () => keepers.forEach((keeper) => keeper.start())
  const leases = new Leases(all)
  const watched = { stallMs: all[0]?.stallMs ?? 0, leaseMs: leases.longest, hasJustJoined: isFirst }
  const watch = new HealthWatch({ target, table }, watched, (condition) => tell({ kind: 'condition', condition }))
  const server = new HealthServer(() => watch.look())
  port.on('message', (order: KeeperOrder) => {
    if (order.kind === 'follow') {
      keepers[order.lane]?.follow(order.leaseMs, order.pulseMs)
      watch.follow(leases.follow(order.lane, order.leaseMs))
      return
    }
    if (order.kind === 'permits') return void permits[order.lane]?.change(order.change)
    connection.close()
    watch.stop()
    server.close()
    void Promise.all(keepers.map((keeper) => keeper.stop())).then(() => {
      tell({ kind: 'stopped' })
      port.close()
    })
  })
  watch.start()
  if (place === undefined) return startKeepers()
  const failed = (error: unknown) =>
    tell({ kind: 'not-listening', code: (error as NodeJS.ErrnoException).code, message: messageOf(error) })
  const listening = isFirst ? server.listen(place) : server.listenAtLast(place, failed)
  if (!isFirst) startKeepers()
  listening.then((address) => {
    if (address === undefined) return
    tell({ kind: 'listening', address })
    // Not before: where the port is taken the worker does not start, and nothing of it is left in the group.
    if (isFirst) startKeepers()
  }, failed)
}

if (parentPort !== null) main(parentPort)
