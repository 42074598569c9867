import { expect, test } from 'vitest'
import { OptionError } from '../src/index.ts'
import { compileKey } from '../src/limits/key-template.ts'
import { resolveLimits } from '../src/limits/limit.ts'

const JOBS = ['charge', 'refund']
const rate = { jobs: 10 }
const source = { name: 'charge', stream: 'orders', group: 'main' }

test.for<[unknown, string]>([
  [{}, 'expected `limits` to be a list of limits, got a value of type object'],
  [[5], 'expected the options of limits[0] to be an object, got 5'],
  [[{ rate, rte: 1 }], 'unknown option `rte` of limits[0] (did you mean `rate`?)'],
  [[{}], 'expected `limits[0]` to have a `rate` or a `concurrency`, got neither'],
  [[{ rate: {} }], 'expected `limits[0].rate.jobs` to be a positive integer, got none'],
  [[{ rate: { jobs: 0 } }], 'expected `limits[0].rate.jobs` to be a positive integer up to 1000000, got 0'],
  [[{ rate: { jobs: 1, perMs: 0 } }], 'expected `limits[0].rate.perMs` to be a positive integer'],
  [[{ rate: { jobs: 1, per: 5 } }], 'unknown option `per` of limits[0].rate'],
  [[{ rate: { jobs: 1, burst: 0 } }], 'expected `limits[0].rate.burst` to be a positive integer'],
  [[{ concurrency: 0 }], 'expected `limits[0].concurrency` to be a positive integer up to 1000000, got 0'],
  [[{ concurrency: 1, cost: 2 }], 'expected `limits[0].cost` beside a `rate`'],
  [[{ rate, cost: 0 }], 'expected `limits[0].cost` to be a number above 0, or a function, got 0'],
  [[{ rate: { jobs: 10, burst: 2 }, cost: 3 }], 'expected `limits[0].cost` to be at most the burst of 2'],
  [[{ rate, key: '' }], 'it is empty'],
  [[{ rate, key: 'a{data.b' }], 'a brace has no other'],
  [[{ rate, key: '{user}' }], '{user} is none of them'],
  [[{ rate, key: '{data..a}' }], '{data..a} is none of them'],
  [[{ rate, key: 5 }], 'expected `limits[0].key` to be a text or a function, got 5'],
  [[{ rate, jobs: [] }], 'expected `limits[0].jobs` to be a list of job names, got an array'],
  [[{ rate, jobs: ['chrge'] }], 'got "chrge" (did you mean charge?)'],
  [[{ rate, name: 'a b' }], 'expected `limits[0].name` to be 1 to 64 letters'],
  [
    [
      { rate, name: 'a' },
      { concurrency: 1, name: 'a' },
    ],
    'limits[0] and limits[1] are one: they share its name',
  ],
  [[{ rate }, { concurrency: 1 }], 'give one a `name`'],
])('the limits %j are refused with the expected form', ([given, message]) => {
  expect(() => resolveLimits(given, JOBS)).toThrow(OptionError)
  expect(() => resolveLimits(given, JOBS)).toThrow(message)
})

test('a limit holds for the jobs that it names, and holds all up only where nothing tells them apart', () => {
  const limits = [{ rate }, { jobs: ['charge'], rate }, { key: '{job}', rate }, { jobs: ['refund', 'charge'], rate }]
  const resolved = resolveLimits(limits, JOBS)

  expect(resolved.map(({ covers }) => covers('refund'))).toEqual([true, false, true, true])
  expect(resolved.map(({ holdsAll }) => holdsAll)).toEqual([true, false, false, true])
  expect(resolved.map(({ label }) => label)).toEqual(['all', 'charge', 'all by {job}', 'refund+1'])
})

test('a limit stays the same limiter when its rate is changed, and in whatever order its jobs are named', () => {
  const idOf = (limit: object) => resolveLimits([limit], JOBS)[0]?.id
  expect(idOf({ jobs: JOBS, rate })).toBe(idOf({ jobs: JOBS.toReversed(), rate: { jobs: 99 }, concurrency: 2 }))
  expect(idOf({ jobs: JOBS, rate })).not.toBe(idOf({ jobs: ['charge'], rate }))
  expect(idOf({ key: '{job}', rate })).not.toBe(idOf({ rate }))
})

test('a burst is what the rate allows in 100 ms, the cost at least, and all of it where the cost is a function', () => {
  const burstOf = (limit: object) => resolveLimits([limit], JOBS)[0]?.rate?.burst
  expect(burstOf({ rate: { jobs: 1000 } })).toBe(100)
  expect(burstOf({ rate: { jobs: 1 } })).toBe(1)
  expect(burstOf({ rate: { jobs: 1 }, cost: 4.5 })).toBe(5)
  expect(burstOf({ rate: { jobs: 50 }, cost: () => 1 })).toBe(50)
})

test('a key template takes texts, numbers and booleans of a payload, at any depth', () => {
  const keyOf = compileKey('key', '{stream}/{group}/{job}:{data.a.b}:{data.n}:{data.t}')
  expect(keyOf({ a: { b: 'x' }, n: 4, t: false }, source)).toEqual({ key: 'orders/main/charge:x:4:false' })
  expect(compileKey('key', '{data}')('eu', source)).toEqual({ key: 'eu' })
})

test.for([
  null,
  5,
  'secret',
  {},
  { account: null },
  { account: '' },
  { account: { secret: 1 } },
  { account: ['secret'] },
])('a payload without the value of a template has no key, and what it has instead is not told: %j', (data) => {
  const found = compileKey('key', 'stripe:{data.account}')(data, source)
  expect(found).toEqual({ fault: '`key` needs `data.account` to be a text, a number or a boolean, and it is not' })
})

test('what a payload inherits is no key', () => {
  expect(compileKey('key', '{data.constructor.name}')({}, source)).toHaveProperty('fault')
})
