import { expect, test } from 'vitest'
import { Trouble } from '../src/publish/trouble.ts'
import { Connection } from '../src/redis/connection.ts'
import { resolveRedis } from '../src/redis/target.ts'
import { onEnd } from './helpers/cleanup.ts'
import { keepingLogger } from './helpers/log.ts'

test('what keeps a producer from publishing is a warning once it lasts, since buffered jobs fail late', () => {
  const { logger, lines } = keepingLogger()
  const target = resolveRedis('redis://127.0.0.1:1')
  const connection = new Connection(target, { role: 'producer', socketTimeoutMs: 5000, onDemand: true })
  onEnd(() => connection.close())
  const trouble = new Trouble('orders', connection, logger)
  for (const nowMs of [0, 4999, 5000, 9000]) trouble.meet('refused', { waiting: 7, nowMs })
  trouble.over(7)
  for (const nowMs of [9001, 14_000]) trouble.meet('full', { waiting: 8, nowMs })
  expect(lines.map(({ level, fields }) => [level, fields['fault']])).toEqual([
    ['info', 'refused'],
    ['warn', 'refused'],
    ['info', undefined],
    ['info', 'full'],
  ])
})
