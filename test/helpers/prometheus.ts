import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse, stringify } from 'yaml'
import { freePort } from '../../cli/free-port.ts'
import { onEnd } from './cleanup.ts'
import { eventually } from './eventually.ts'
import { findPrometheus } from './prometheus-package.ts'
import { PROMETHEUS_FOLDER, RULES_FOLDER, ymlIn } from './rules.ts'

/** A real Prometheus with our own configuration and rules: only addresses, paths and intervals are others. */

export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface RuleState {
  readonly name: string
  readonly health: string
  readonly lastError?: string
  readonly state?: string
}

export interface RunningPrometheus {
  readonly url: string
  query(expr: string): Promise<Sample[]>
  /** Whether it had any value since Prometheus began; what a panel would draw. @throws Error if it cannot be evaluated. */
  hadData(expr: string): Promise<boolean>
  /** The only value of an expression that has one; 0 if there is none. */
  value(expr: string): Promise<number>
  targets(): Promise<{ job: string; instance: string; health: string; lastError: string }[]>
  rules(): Promise<RuleState[]>
}

interface Configuration {
  global: Record<string, string>
  rule_files: string[]
  scrape_configs: { job_name: string; static_configs?: { targets: readonly string[] }[]; dns_sd_configs?: unknown }[]
}

/** Scrapes these addresses, by job of our configuration, once a second; ended at the end of the file or the test. */
export async function startPrometheus(
  targets: Readonly<Record<string, readonly string[]>>,
): Promise<RunningPrometheus> {
  const { prometheus, env } = await findPrometheus()
  const folder = mkdtempSync(join(tmpdir(), 'millrace-prometheus-'))
  const config = join(folder, 'prometheus.yml')
  writeFileSync(config, stringify(configured(folder, targets)))
  copyRules(join(folder, 'rules'))
  const address = `127.0.0.1:${await freePort()}`
  const child = spawn(
    prometheus,
    [`--config.file=${config}`, `--storage.tsdb.path=${join(folder, 'data')}`, `--web.listen-address=${address}`],
    { env, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-5000)))
  const exited = new Promise((resolve) => child.once('exit', resolve))
  onEnd(async () => {
    child.kill('SIGKILL')
    await exited
    rmSync(folder, { recursive: true, force: true })
  })
  const url = `http://${address}`
  await eventually(
    async () => {
      if (child.exitCode !== null) throw new Error(`prometheus ended:\n${said}`)
      if (!(await fetch(`${url}/-/ready`)).ok) throw new Error(`prometheus is not ready:\n${said}`)
    },
    { timeoutMs: 30_000, intervalMs: 100 },
  )
  return asking(url)
}

function configured(folder: string, targets: Readonly<Record<string, readonly string[]>>): Configuration {
  const config = parse(readFileSync(join(PROMETHEUS_FOLDER, 'prometheus.yml'), 'utf8')) as Configuration
  const jobs = config.scrape_configs.map(({ job_name }) => job_name).sort()
  if (jobs.join() !== Object.keys(targets).sort().join()) {
    throw new Error(`prometheus.yml scrapes ${jobs.join(', ')}: give the targets of these`)
  }
  return {
    ...config,
    global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
    rule_files: config.rule_files.map((path) => path.replace('/etc/prometheus', folder)),
    scrape_configs: config.scrape_configs.map(({ dns_sd_configs: _addresses, ...job }) => ({
      ...job,
      static_configs: [{ targets: targets[job.job_name] ?? [] }],
    })),
  }
}

/** Groups have intervals of their own, and a group is first evaluated somewhere within its interval. */
function copyRules(folder: string): void {
  mkdirSync(folder)
  for (const name of ymlIn(RULES_FOLDER)) {
    const text = readFileSync(join(RULES_FOLDER, name), 'utf8')
    writeFileSync(join(folder, name), text.replace(/^( +)interval: .*$/gm, '$1interval: 1s'))
  }
}

function asking(url: string): RunningPrometheus {
  async function get<Data>(path: string, params: Record<string, string> = {}): Promise<Data> {
    const response = await fetch(`${url}/api/v1/${path}?${new URLSearchParams(params).toString()}`)
    const answer = (await response.json()) as { status: string; data: Data; error?: string }
    if (answer.status !== 'success') throw new Error(`${params['query'] ?? path}: ${answer.error ?? answer.status}`)
    return answer.data
  }
  const beganMs = Date.now()
  async function query(expr: string): Promise<Sample[]> {
    interface Found {
      resultType: string
      result: { metric: Record<string, string>; value: [number, string] }[] | [number, string]
    }
    const { resultType, result } = await get<Found>('query', { query: expr })
    if (resultType === 'scalar') return [{ labels: {}, value: Number((result as [number, string])[1]) }]
    return (result as { metric: Record<string, string>; value: [number, string] }[]).map(({ metric, value }) => ({
      labels: metric,
      value: Number(value[1]),
    }))
  }
  return {
    url,
    query,
    async hadData(expr) {
      const [start, end] = [beganMs / 1000, Date.now() / 1000].map((time) => time.toFixed(3))
      const asked = { query: expr, start: start ?? '', end: end ?? '', step: '2' }
      return (await get<{ result: unknown[] }>('query_range', asked)).result.length > 0
    },
    value: async (expr) => (await query(expr))[0]?.value ?? 0,
    async targets() {
      interface Target {
        labels: { job: string; instance: string }
        health: string
        lastError: string
      }
      const { activeTargets } = await get<{ activeTargets: Target[] }>('targets')
      return activeTargets.map(({ labels: { job, instance }, health, lastError }) => ({
        ...{ job, instance },
        ...{ health, lastError },
      }))
    },
    async rules() {
      const { groups } = await get<{ groups: { rules: RuleState[] }[] }>('rules')
      return groups.flatMap(({ rules }) => rules)
    },
  }
}
