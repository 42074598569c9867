/**
 * Prometheus and promtool wherever they are: in PATH, else Debian's package `prometheus`, unpacked into a cache and not
 * installed. Where neither can be had this fails: rules that nobody has checked must not look as if they were.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findInPath, programEnv, unpackProgram } from '../../cli/apt-package.ts'

const run = promisify(execFile)
const CACHE = join(import.meta.dirname, '../../node_modules/.cache/millrace/prometheus')

/** Both programs have answered `--version`. */
export interface PrometheusPrograms {
  readonly prometheus: string
  readonly promtool: string
  /** For starting them: their libraries may not be the system's. */
  readonly env: NodeJS.ProcessEnv
}

export interface FindPrometheusOptions {
  /** @default process.env */
  readonly env?: NodeJS.ProcessEnv
  /** Where a downloaded package is unpacked. @default node_modules/.cache/millrace/prometheus */
  readonly cacheDir?: string
}

/** @throws Error that says what is missing and how to install it. */
export async function findPrometheus(options: FindPrometheusOptions = {}): Promise<PrometheusPrograms> {
  const { env = process.env, cacheDir = CACHE } = options
  const [prometheus, promtool] = await Promise.all([findInPath('prometheus', env), findInPath('promtool', env)])
  if (prometheus !== undefined && promtool !== undefined) {
    const found = await proven({ prometheus, promtool, env })
    if (found !== undefined) return found
  }
  const wanted = {
    what: 'Prometheus',
    packages: [['prometheus']],
    find: (root: string, libraryPath: string | undefined) =>
      proven({
        prometheus: join(root, 'usr/bin/prometheus'),
        promtool: join(root, 'usr/bin/promtool'),
        env: programEnv(env, libraryPath),
      }),
  }
  try {
    return await unpackProgram(cacheDir, env, wanted, () =>
      process.stderr.write(`no prometheus in PATH: unpacking Debian's package below ${cacheDir}\n`),
    )
  } catch (error) {
    throw new Error(
      'these tests need prometheus and promtool: install them (sudo apt-get install --yes prometheus) and have them in PATH',
      { cause: error },
    )
  }
}

async function proven(programs: PrometheusPrograms): Promise<PrometheusPrograms | undefined> {
  try {
    for (const path of [programs.prometheus, programs.promtool]) {
      await run(path, ['--version'], { env: programs.env, timeout: 20_000 })
    }
    return programs
  } catch {
    return undefined
  }
}
