import { describe, expect, test } from 'vitest'
import { Ledger } from '../helpers/publish-ledger.ts'

/** The judge must find what breaks a promise; a judge that finds nothing proves nothing. */

function ledgerOf(jobs: number) {
  const ledger = new Ledger()
  const lane = ledger.lane('a producer')
  for (let at = 0; at < jobs; at++) ledger.push(lane, 1000)
  return ledger
}

test('each job that was told as it is in Redis breaks nothing, whichever of both is known first', () => {
  const ledger = ledgerOf(4)
  ledger.told(0, 'in', '1-0')
  ledger.found('1-0', 0)
  ledger.found('2-0', 1)
  ledger.told(1, 'in', '2-0')
  ledger.told(2, 'no')
  ledger.sent(3)
  ledger.told(3, 'unknown')
  ledger.found('3-0', 3)
  ledger.checkOverdue(9000, 100)
  ledger.checkMissing()

  expect(ledger.violations).toEqual([])
  expect(ledger.counts).toEqual({ pushed: 4, in: 2, no: 1, unknown: 1, unknownFound: 1, found: 3 })
})

describe('it finds a job', () => {
  test.each<[string, (ledger: Ledger) => void, RegExp]>([
    ['that is lost', (ledger) => ledger.told(0, 'in', '1-0'), /job 0 of a producer is not in Redis/],
    ['that is there twice', (ledger) => ['1-0', '2-0'].forEach((id) => ledger.found(id, 0)), /is in Redis twice/],
    ['that hangs', (ledger) => ledger.checkOverdue(2000, 100), /has no outcome 1000 ms after its time was up/],
    ['without an outcome', () => {}, /has no outcome/],
    ['that nobody published', (ledger) => ledger.found('1-0', 7), /was never published/],
    [
      'that is there under another id',
      (ledger) => {
        ledger.told(0, 'in', '1-0')
        ledger.found('2-0', 0)
      },
      /has the ids 1-0 and 2-0/,
    ],
    [
      'that is there though it was refused',
      (ledger) => {
        ledger.told(0, 'no')
        ledger.found('1-0', 0)
      },
      /told 'no'/,
    ],
    [
      'that was refused though it is there',
      (ledger) => {
        ledger.found('1-0', 0)
        ledger.told(0, 'no')
      },
      /told 'no'/,
    ],
    ['that was told twice', (ledger) => ledger.told(1, 'no'), /was told no, and then no/],
    ['that is unknown and was never sent', (ledger) => ledger.told(0, 'unknown'), /was never on its way/],
    [
      'that is behind a later one',
      (ledger) => {
        ledger.push(0, 1000)
        ledger.told(0, 'in', '2-0')
        ledger.told(2, 'in', '1-0')
        ledger.found('1-0', 2)
        ledger.found('2-0', 0)
      },
      /job 0 .*is behind job 2/,
    ],
  ])('%s', (_what, act, message) => {
    const ledger = ledgerOf(2)
    ledger.told(1, 'no')
    act(ledger)
    ledger.checkMissing()

    expect(ledger.violations.join('\n')).toMatch(message)
  })
})
