import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { writeSpill } from '../../src/publish/spill-writing.ts'
import { append, open } from '../../src/redis/publishing.ts'
import {
  isScript,
  loadSpillScripts,
  newRecovery,
  numbersIn,
  onItsWay,
  range,
  recover,
  spilled,
  spillPath,
} from '../fixtures/spills.ts'
import { beside } from '../helpers/cleanup.ts'
import { startChild } from '../helpers/child.ts'
import { eventually } from '../helpers/eventually.ts'
import { keepingLogger } from '../helpers/log.ts'
import { startProxy } from '../helpers/proxy.ts'
import { connectTo, startServer } from '../helpers/redis.ts'

const writer = new URL('../fixtures/spill-writer.ts', import.meta.url)
const recoverer = new URL('../fixtures/spill-recoverer.ts', import.meta.url)

test.concurrent(
  'a process killed while it writes a spill file leaves every job that it had written, once',
  beside(async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const path = await spillPath()
    // The second mebibyte is not full yet at this job.
    const child = startChild(writer, { args: [path, '3000', '1000', '1500'] })
    expect((await child.exited).signal).toBe('SIGKILL')
    const { logger, lines } = keepingLogger()
    const [told] = await recover(server.url, path, logger)
    const stored = await numbersIn(client)
    expect(stored.length).toBeGreaterThan(900)
    expect(stored).toEqual(range(0, stored.length - 1))
    expect(told?.published).toBe(stored.length)
    // What was never written cannot be published, but it is told.
    const counts = lines.find(({ level }) => level === 'warn')?.fields ?? {}
    expect(stored.length + Number(counts['missing']) + Number(counts['broken'])).toBe(3000)
  }),
)

test.concurrent(
  'processes killed again and again while they publish a spill file double and lose nothing',
  beside(async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const path = await spillPath()
    await loadSpillScripts(client)
    await open(client, 'orders', 'p')
    const batch = onItsWay(spilled(1, 3))
    await writeSpill(path, { batches: [batch], jobs: spilled(4, 2600) })
    // With the batch, with the take-over of the jobs, and in the middle of their batches, each executed or not.
    const points = [
      { n: 1, isExecuted: true },
      { n: 2, isExecuted: false },
      { n: 3, isExecuted: true },
    ]
    for (const { n, isExecuted } of points) {
      const proxy = await startProxy(server.url)
      let seen = 0
      const match = (command: string[]) => isScript(command) && (seen += 1) === n
      const reached = isExecuted ? proxy.swallowReplyKeepOpen(match) : proxy.holdBefore(match).held
      const child = startChild(recoverer, { args: [proxy.url, path] })
      await reached
      child.signal('SIGKILL')
      await child.exited
      await proxy.stop()
      const sofar = await numbersIn(client)
      expect(sofar).toEqual(range(1, sofar.length))
    }
    expect(await recover(server.url, path)).toMatchObject([{ published: 2600, unknown: 0, broken: 0 }])
    expect(await numbersIn(client)).toEqual(range(1, 2600))
    expect(existsSync(path)).toBe(false)
  }),
)

test.concurrent(
  'processes that find the same spill files at once double and lose nothing',
  beside(async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const path = await spillPath()
    for (const n of [0, 1, 2]) await writeSpill(path, { batches: [], jobs: spilled(n * 3000 + 1, n * 3000 + 3000) })
    const children = [1, 2, 3].map(() => startChild(recoverer, { args: [server.url, path] }))
    await Promise.all(children.map(({ exited }) => exited))
    // Each file is done by whoever took it over last.
    await recover(server.url, path)
    const stored = await numbersIn(client)
    expect(stored).toHaveLength(9000)
    expect(stored.toSorted((one, other) => one - other)).toEqual(range(1, 9000))
  }),
)

test.concurrent(
  'a recovery goes on through a Redis that is killed and comes back with what it had answered',
  beside(async () => {
    const server = await startServer({ aof: true })
    const proxy = await startProxy(server.url)
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 2000) })
    let seen = 0
    const hold = proxy.holdBefore((command) => isScript(command) && (seen += 1) === 5)
    const { logger, messages } = keepingLogger()
    const recovering = newRecovery(proxy.url, path, { logger }).start()
    await hold.held
    await server.kill()
    hold.release()
    await eventually(() => expect([...messages()].join()).toContain('it goes on trying'))
    await server.restart()
    expect(await recovering).toMatchObject([{ published: 2000, unknown: 0 }])
    expect(await numbersIn(connectTo(server.url))).toEqual(range(1, 2000))
  }),
)

test.concurrent(
  'one whose Redis comes back empty publishes what it had not sent, and leaves only the batch on its way',
  beside(async () => {
    const server = await startServer({ args: ['--save', ''] })
    const proxy = await startProxy(server.url)
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 2000) })
    await loadSpillScripts(connectTo(server.url))
    let seen = 0
    // Taking over, 1 to 500, 501 to 1000: executed, and nobody hears of it.
    const swallowed = proxy.swallowReplyKeepOpen((command) => isScript(command) && (seen += 1) === 3)
    const recovering = newRecovery(proxy.url, path).start()
    await swallowed
    await server.kill()
    await server.restart()
    const [told] = await recovering
    expect(told).toMatchObject({ published: 1500, unknown: 500, broken: 0 })
    expect(await numbersIn(connectTo(server.url))).toEqual(range(1001, 2000))
  }),
)

test.concurrent(
  'a process with nothing else to do ends while Redis is away, and the file stays',
  beside(async () => {
    const server = await startServer()
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 3) })
    await server.kill()
    const child = startChild(recoverer, { args: [server.url, path] })
    // Not by an exit of its own: the recovery it waits for is not over.
    expect((await child.exited).code).toBe(13)
    await server.restart()
    expect(await recover(server.url, path)).toMatchObject([{ published: 3 }])
  }),
)

test.concurrent(
  'a recovery that is stopped while Redis is away stops, and the file stays',
  beside(async () => {
    const server = await startServer()
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 3) })
    await server.kill()
    const { logger, messages } = keepingLogger()
    const recovery = newRecovery(server.url, path, { logger })
    const recovering = recovery.start()
    await eventually(() => expect([...messages()].join()).toContain('it goes on trying'))
    await recovery.stop()
    expect(await recovering).toEqual([])
    await server.restart()
    expect(await recover(server.url, path)).toMatchObject([{ published: 3 }])
    expect(await numbersIn(connectTo(server.url))).toEqual([1, 2, 3])
  }),
)

test.concurrent(
  'a batch is appended before later jobs even if its producer is only now heard of',
  beside(async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const path = await spillPath()
    const batch = onItsWay(spilled(1, 3))
    await open(client, 'orders', 'p')
    await writeSpill(path, { batches: [batch], jobs: spilled(4, 5) })
    const proxy = await startProxy(server.url)
    const hold = proxy.holdBefore(isScript)
    const recovering = newRecovery(proxy.url, path).start()
    await hold.held
    // The copy that its own producer had sent arrives at last.
    await append(client, 'orders', batch)
    hold.release()
    expect(await recovering).toMatchObject([{ published: 5, unknown: 0 }])
    expect(await numbersIn(client)).toEqual([1, 2, 3, 4, 5])
  }),
)
