import { readFile } from 'node:fs/promises'
import { runInThisContext } from 'node:vm'
import { expect, test } from 'vitest'
import { Worker } from '../src/index.ts'

const page = await readFile(new URL('../docs/streams-and-priority.md', import.meta.url), 'utf8')

test('the worker of docs/streams-and-priority.md is one that can be made', () => {
  const [, code = ''] = /```ts\n(.*?)```/s.exec(page) ?? []
  const make = runInThisContext(`(Worker, handlers) => ${code}`) as (made: object, handlers: object) => Worker
  class Local extends Worker {
    constructor(options: object) {
      super({ redis: 'redis://127.0.0.1:1', ...options } as ConstructorParameters<typeof Worker>[0])
    }
  }
  const worker = make(Local, { x() {} })
  expect(worker.streams).toEqual(['orders', 'mails'])
  void worker.stop()
})

test('its table names the options that there are, with the bounds that they have', () => {
  const rows = [...page.matchAll(/^\| `([^`]+)`/gm)].map(([, name = '']) => name)
  expect(rows).toEqual(['streams', 'streams[].weight', 'streams[].concurrency', 'priority'])
  const made = (options: object) => () => new Worker({ redis: 'redis://127.0.0.1:1', handlers: { x() {} }, ...options })
  const many = (count: number) => Array.from({ length: count }, (_, n) => `s${n}`)
  expect(made({ streams: many(64) })).not.toThrow()
  expect(made({ streams: many(65) })).toThrow('a list of 1 to 64 streams')
  expect(made({ streams: [{ stream: 'a', weight: 1000 }, 'b'] })).not.toThrow()
  expect(made({ streams: [{ stream: 'a', weight: 1001 }, 'b'] })).toThrow('up to 1000')
})
