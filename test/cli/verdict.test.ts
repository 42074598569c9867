import { describe, expect, test } from 'vitest'
import { reportLines } from '../../cli/demo/report.ts'
import type { Run } from '../../cli/demo/results.ts'
import { fateOf, verdictOf, type Facts, type Fate } from '../../cli/demo/verdict.ts'

const content = (sha256: string, stamp = 'then') => ({ sha256, stamp, bytes: 1 })
const gone = { fault: 'ENOENT' }
const closed = { fault: 'EACCES' }

function run(file: string, changes: Partial<Run> = {}): Run {
  const times = { startedMs: 1000, endedMs: 2000 }
  return { id: `id of ${file}`, file, pid: 1, deliveries: 1, ...times, look: content('a'), ...changes }
}

describe('a file is', () => {
  test.each<[Fate, Run[], Parameters<typeof fateOf>[1]]>([
    ['lost', [], content('a')],
    ['verified', [run('f')], content('a')],
    ['verified', [run('f'), run('f')], content('a', 'now')],
    ['different', [run('f')], content('b')],
    ['different', [run('f', { look: content('b') }), run('f')], content('a')],
    ['different', [run('f', { look: closed })], content('a')],
    ['changed', [run('f')], content('b', 'now')],
    ['changed', [run('f', { look: gone })], content('a')],
    ['vanished', [run('f')], gone],
    ['vanished', [run('f', { look: gone })], gone],
    ['unreadable', [run('f', { look: closed })], closed],
  ])('%s: %j, and now %j', (fate, runs, now) => expect(fateOf(runs, now)).toBe(fate))
})

/** A demo that went well: two files, one of them recovered from worker 1 by worker 2. */
function good(changes: Partial<Facts> = {}): Facts {
  const recovered = run('b', { pid: 2, deliveries: 2, startedMs: 5000, endedMs: 5100 })
  return {
    files: ['a', 'b'],
    runs: new Map([
      ['a', [run('a')]],
      ['b', [recovered]],
    ]),
    fates: new Map<string, Fate>([
      ['a', 'verified'],
      ['b', 'verified'],
    ]),
    crash: { pid: 1, killedMs: 2000, heldIds: ['id of b'] },
    dead: 0,
    ...changes,
  }
}

describe('the demo', () => {
  test('succeeds when every file is verified and a running job was recovered', () => {
    expect(verdictOf(good())).toEqual({
      fates: { verified: 2, lost: 0, different: 0, changed: 0, vanished: 0, unreadable: 0 },
      runTwice: 0,
      recovered: 1,
      recoveredRunning: 1,
      firstRecoveredMs: 3000,
      lastRecoveredMs: 3100,
      perSecond: 1,
      faults: [],
    })
  })

  test.each<[string, Partial<Facts>, string]>([
    ['a file has no result', { fates: new Map([['a', 'verified']]) }, '1 of 2 files were lost'],
    [
      'a file is lost',
      {
        fates: new Map([
          ['a', 'lost'],
          ['b', 'verified'],
        ]),
      },
      '1 of 2 files were lost',
    ],
    [
      'a hash differs',
      {
        fates: new Map([
          ['a', 'different'],
          ['b', 'verified'],
        ]),
      },
      '1 files have another hash than their worker computed',
    ],
    ['a job is dead', { dead: 1 }, '1 jobs are dead letters'],
    ['no worker was killed', { crash: undefined }, 'no worker was killed'],
    [
      'the killed worker had nothing running',
      { crash: { pid: 1, killedMs: 2000, heldIds: [] } },
      'nothing had to be recovered from the killed worker',
    ],
    [
      'what it had running did not run elsewhere',
      { crash: { pid: 2, killedMs: 2000, heldIds: ['id of b'] } },
      'nothing had to be recovered from the killed worker',
    ],
  ])('fails when %s', (_, changes, fault) => expect(verdictOf(good(changes)).faults).toEqual([fault]))

  test('does not fail for files that somebody else wrote to or removed', () => {
    const fates = new Map<string, Fate>([
      ['a', 'changed'],
      ['b', 'vanished'],
    ])
    expect(verdictOf(good({ fates }))).toMatchObject({ fates: { changed: 1, vanished: 1, lost: 0 }, faults: [] })
  })

  test('counts a job that was done twice, and says in its last line what went wrong', () => {
    const runs = new Map([['a', [run('a'), run('a', { pid: 2, deliveries: 2 })]]])
    const verdict = verdictOf(good({ runs, fates: new Map([['a', 'verified']]) }))
    expect(verdict.runTwice).toBe(1)
    const about = { folder: '/files', files: 2, leaseMs: 3000, processes: 2, killedPid: 1, running: 1, seconds: 5 }
    const lines = reportLines({ ...about, ...verdict }, process.stdout)
    expect(lines.join('\n')).toMatch(/\n {2}lost +1 {2}.*\n {2}run twice +1 {2}/)
    expect(lines.at(-1)).toContain('Failed: 1 of 2 files were lost; nothing had to be recovered')
  })
})
