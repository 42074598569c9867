import { describe, expect, test } from 'vitest'
import { Slots, type SlotUser } from '../src/slots.ts'
import type { StreamPriority } from '../src/worker-streams.ts'

/** The slots of a worker with several streams, with streams that are numbers alone: which of them begins, and who may read. */

class User implements SlotUser {
  taken = 0
  waiting = 0
  claims = 0
  fetchRoom = 1
  pace = 0
  leastAhead = 0
  isPaused = false
  readonly #name: string
  readonly #begun: string[]

  constructor(name: string, begun: string[]) {
    this.#name = name
    this.#begun = begun
  }

  get ready(): number {
    return this.isPaused ? 0 : this.waiting
  }

  beginOne(): void {
    this.waiting -= 1
    this.taken += 1
    this.#begun.push(this.#name)
  }
}

function made(
  total: number,
  weights: readonly number[],
  { priority = 'weighted', bounds = [] }: { priority?: StreamPriority; bounds?: readonly number[] } = {},
) {
  const begun: string[] = []
  const slots = new Slots(total, priority)
  const users = weights.map((weight, at) => {
    const user = new User('abc'[at] ?? '', begun)
    slots.add(user, { weight, concurrency: bounds[at] ?? total })
    return user
  }) as [User, User, ...User[]]
  /** Begins so many, each in a slot that was given back before. */
  const begin = (count: number) => {
    for (let n = 0; n < count; n++) {
      slots.fill()
      for (const user of users) user.taken = 0
    }
  }
  const countOf = (name: string) => begun.filter((one) => one === name).length
  return { begun, slots, users, begin, countOf }
}

describe('slots', () => {
  test('are filled as far as there are any, and no further', () => {
    const { slots, users, begun } = made(3, [1, 1])
    for (const user of users) user.waiting = 10
    slots.fill()
    expect(begun).toHaveLength(3)
    expect(slots.free).toBe(0)
    slots.fill()
    expect(begun).toHaveLength(3)
  })

  test('go by weight, and in strict order to the first that has any', () => {
    const weighted = made(1, [3, 1])
    for (const user of weighted.users) user.waiting = 100
    weighted.begin(40)
    expect([weighted.countOf('a'), weighted.countOf('b')]).toEqual([30, 10])
    const strict = made(1, [1, 1000], { priority: 'strict' })
    for (const user of strict.users) user.waiting = 5
    strict.begin(7)
    expect(strict.begun.join('')).toBe('aaaaabb')
  })

  test.each(['cannot be read', 'is paused', 'has no work'])('a stream that %s saves up no turns', (why) => {
    const { slots, users, begin, countOf } = made(1, [1, 1])
    const [a, b] = users
    b.waiting = 1000
    if (why === 'cannot be read') slots.isOut(0, true)
    if (why === 'is paused') a.fetchRoom = 0
    for (let n = 0; n < 100; n++) {
      begin(1)
      if (why === 'has no work') slots.isDry(0)
    }
    expect(countOf('b')).toBe(100)
    slots.isOut(0, false)
    a.fetchRoom = 1
    a.waiting = 1000
    begin(100)
    expect(countOf('a')).toBeGreaterThanOrEqual(49)
    expect(countOf('a')).toBeLessThanOrEqual(51)
  })

  test('a stream that has all the slots it may take saves up no turns, also where it may be fetched ahead', () => {
    const { slots, users, begin, countOf } = made(2, [1, 1], { bounds: [1, 2] })
    const [a, b] = users
    b.waiting = 1000
    for (let n = 0; n < 100; n++) {
      a.taken = 1
      b.taken = 0
      slots.fill()
    }
    expect(countOf('b')).toBe(100)
    for (const user of users) user.taken = 0
    a.waiting = 1000
    begin(50)
    expect(countOf('a')).toBeGreaterThanOrEqual(49)
    expect(countOf('a')).toBeLessThanOrEqual(51)
  })

  test('a stream that cannot be read has its turns for what of it waits here', () => {
    const { slots, users, begin, countOf } = made(1, [1, 1])
    for (const user of users) user.waiting = 100
    slots.isOut(0, true)
    begin(100)
    expect(countOf('a')).toBe(50)
  })

  test('begin nothing of a stream that is paused', () => {
    const { users, begun, begin } = made(2, [1, 1])
    for (const user of users) user.waiting = 3
    users[0].isPaused = true
    begin(5)
    expect(begun.join('')).toBe('bbb')
  })

  test('whoever waits for room is told whenever they were filled', () => {
    const { slots } = made(1, [1, 1])
    let told = 0
    slots.onRoom = () => (told += 1)
    slots.fill()
    expect(told).toBe(1)
  })
})

describe('what may be read', () => {
  test('is shared out by weight, less what waits here already', () => {
    const { slots, users } = made(8, [3, 1])
    expect(slots.quotas(8, [100, 100])).toEqual([6, 2])
    users[0].waiting = 4
    expect(slots.quotas(8, [100, 100])).toEqual([5, 3])
    expect(slots.quotas(8, [1, 100])).toEqual([1, 7])
  })

  test('is shared out less what was read already and is on its way here', () => {
    const { slots, users } = made(8, [3, 1])
    expect(slots.quotas(8, [100, 100], [4, 0])).toEqual([5, 3])
    expect(slots.quotas(8, [100, 100], [0, 4])).toEqual([8, 0])
    users[0].waiting = 2
    expect(slots.quotas(8, [100, 100], [2, 0])).toEqual([5, 3])
  })

  test('in strict order is all that the first wants, and it is read first', () => {
    const { slots } = made(8, [1, 5], { priority: 'strict' })
    expect(slots.quotas(8, [100, 100])).toEqual([100, 100])
    expect(slots.order()).toEqual([0, 1])
  })

  test('is read first for whoever is furthest behind', () => {
    const { slots, users, begin } = made(1, [1, 1])
    users[0].waiting = 1
    begin(1)
    expect(slots.order()).toEqual([1, 0])
  })

  test('ahead is what ends in that time on all streams, less what waits, and each has its share of it', () => {
    const { slots, users } = made(16, [3, 1])
    for (const user of users) user.taken = 8
    users[0].pace = 6
    users[1].pace = 2
    slots.measure()
    expect(slots.aheadRoom).toBe(8)
    expect(users.map(({ leastAhead }) => leastAhead)).toEqual([6, 2])
    users[1].waiting = 5
    expect(slots.aheadRoom).toBe(3)
    users[1].waiting = 50
    expect(slots.aheadRoom).toBe(0)
  })

  test('ahead, of a stream that is behind its share, is by so much more, and it catches up with the next read', () => {
    const { slots, users, begin, countOf } = made(1, [3, 1])
    // Of the first none has come yet: the second has its slots meanwhile.
    users[1].waiting = 20
    begin(20)
    users[0].pace = 6
    users[1].pace = 10
    slots.measure()
    expect(users.map(({ leastAhead }) => leastAhead)).toEqual([27, 0])
    const [first, second] = slots.quotas(20, [27, 10])
    expect([first, second]).toEqual([20, 0])
    users[0].waiting = first ?? 0
    users[1].waiting = 20
    begin(20)
    expect(countOf('a')).toBe(20)
  })

  test('ahead, of a stream with a bound of its own, is no more than it could begin if the slots of others were free', () => {
    const leastOf = (bounds: readonly number[], ...taken: number[]) => {
      const { slots, users } = made(16, [1, 1], { bounds })
      for (const [at, user] of users.entries()) Object.assign(user, { pace: 10, taken: taken[at] ?? 0 })
      slots.measure()
      return users.map(({ leastAhead }) => leastAhead)
    }
    expect(leastOf([12, 12], 8, 8)).toEqual([4, 4])
    expect(leastOf([12, 12], 3, 12)).toEqual([8, 0])
    expect(leastOf([12, 12], 12, 0)).toEqual([0, 8])
    // What is free is read for anyway.
    expect(leastOf([12, 12], 0, 0)).toEqual([0, 0])
    // Others have what they need to be asked for at their turn, whoever has the slots now.
    expect(leastOf([16, 16], 8, 8)).toEqual([10, 10])
    expect(leastOf([1, 16], 1, 15)).toEqual([0, 10])
  })

  test('of claims, is at most a worker’s slots on all streams, and one on each in any case', () => {
    const { slots, users } = made(4, [1, 1])
    users[0].claims = 3
    expect(slots.claimRoomBeside(0)).toBe(1)
    users[0].claims = 9
    expect(slots.claimRoomBeside(0)).toBe(1)
    expect(slots.claimRoomBeside(9)).toBe(0)
  })

  test('of claims, is not taken up by what was fetched ahead, of which there is always some while a backlog lasts', () => {
    const { slots, users } = made(4, [1, 1])
    for (const user of users) user.waiting = 50
    expect(slots.claimRoomBeside(0)).toBe(4)
  })
})
