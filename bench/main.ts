import { writeFile } from 'node:fs/promises'
import { messageOf } from '../src/errors.ts'
import { FLOORS, type Floor } from './floors.ts'
import { judge } from './judging.ts'
import { thisMachine, versions } from './machine.ts'
import { chosenGroups } from './measures/groups.ts'
import type { Group } from './measures/measure.ts'
import { FULL, QUICK } from './measures/scale.ts'
import { type BenchOptions, readOptions, usageExitCode } from './options.ts'
import { installPeers, missingPeers } from './peers.ts'
import { jsonOf } from './report/json.ts'
import { markdownOf } from './report/markdown.ts'
import { Progress } from './report/progress.ts'
import type { Report } from './report/report.ts'
import { isForgiven, textOf } from './report/text.ts'
import { valuesOf } from './results.ts'
import { runRounds } from './rounds.ts'

/**
 * `npm run bench`: measures millrace and what it is compared with, in interleaved rounds, and judges the ratios.
 *
 * To read it, begin with measures/ (what is measured), contenders/ (how each system is used) and steps/ (what the process
 * that is measured does).
 */

const progress = new Progress(process.stderr)

async function measureAll(options: BenchOptions, signal: AbortSignal): Promise<Report> {
  const startedAtMs = performance.now()
  const date = new Date().toISOString()
  const say = (line: string) => progress.say(line)
  if (options.without.length === 0) await installPeers(say, signal)
  const missing = await missingPeers(options.without)
  for (const [peer, why] of missing) say(`${peer} is not measured: ${why}; the rest goes on`)
  const groups = chosenGroups(options.quick ? QUICK : FULL, options)
  const { results, failures } = await runRounds(
    groups,
    { rounds: options.rounds, without: new Set(missing.keys()), profileFolder: options.profile, signal },
    {
      begun: (cell) => progress.begun(cell),
      measured: (cell, result) => progress.measured(cell, result),
      failed: (cell, failure) => progress.failed(cell, failure),
    },
  )
  progress.end()
  return {
    date,
    elapsedMs: Math.round(performance.now() - startedAtMs),
    isQuick: options.quick,
    machine: thisMachine(),
    versions: await versions(missing),
    groups,
    results,
    failures,
    missing: Object.fromEntries(missing),
    floors: options.quick ? undefined : judge(floorsOf(groups), (name) => valuesOf(results, name)),
  }
}

/** What nobody asked for is not judged. */
function floorsOf(groups: readonly Group[]): Floor[] {
  const measured = new Set(groups.flatMap(({ measures }) => measures.map(({ name }) => name)))
  return FLOORS.filter(({ of, over }) => [of, ...over].every(({ measure }) => measured.has(measure)))
}

async function main(signal: AbortSignal): Promise<number> {
  const options = readOptions(process.argv.slice(2))
  const report = await measureAll(options, signal)
  process.stdout.write(textOf(report))
  if (options.json !== undefined) await writeFile(options.json, jsonOf(report))
  if (options.markdown !== undefined) await writeFile(options.markdown, markdownOf(report))
  const isMissed = report.floors?.some(({ verdict }) => verdict === 'missed') === true
  return isMissed || report.failures.some((failure) => !isForgiven(failure, report)) ? 1 : 0
}

const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    // A second one does not wait for anything: what runs is ended by the handlers of 'exit'.
    if (stop.signal.aborted) process.exit(130)
    stop.abort(new Error('interrupted'))
  })
}

try {
  process.exitCode = await main(stop.signal)
} catch (error) {
  progress.end()
  const usage = usageExitCode(error)
  // What is wrong with the command line has been said.
  if (usage === undefined) progress.say(`error: ${messageOf(error)}`)
  process.exitCode = usage ?? (stop.signal.aborted ? 130 : 1)
}
