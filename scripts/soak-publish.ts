import { messageOf } from '../src/errors.ts'
import { readOptions, USAGE, type SoakOptions } from './soak-publish/options.ts'
import { Soak } from './soak-publish/soak.ts'
import { textOf } from './soak-publish/report.ts'

/**
 * `npm run soak:publish`: a Redis of its own, a proxy before it, producers of every kind, and faults at random until the time
 * is up. What was promised for each job is judged again and again, by the ledger that the tests have too.
 */
async function main(options: SoakOptions): Promise<number> {
  const soak = await Soak.open(options)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => soak.end())
  try {
    const told = await soak.run()
    process.stdout.write(textOf(told, options))
    return told.violated > 0 ? 1 : 0
  } finally {
    await soak.close()
  }
}

let options: SoakOptions | undefined
try {
  options = readOptions(process.argv.slice(2))
  if (options === undefined) process.stdout.write(USAGE)
  else process.exit(await main(options))
} catch (error) {
  process.stderr.write(`error: ${messageOf(error)}\n${options === undefined ? USAGE : ''}`)
  process.exit(options === undefined ? 2 : 1)
}
