import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { parse } from 'yaml'
import { freePort } from '../../cli/free-port.ts'
import { start } from './children.ts'
import type { Scraped } from './workload.ts'

const CONFIG = fileURLToPath(new URL('../../grafana/prometheus/prometheus.yml', import.meta.url))
const RULES = fileURLToPath(new URL('../../grafana/prometheus/rules/*.yml', import.meta.url))
export const SCRAPE_SECONDS = 2

interface Config {
  readonly scrape_configs: readonly { readonly job_name: string }[]
}

/**
 * A real Prometheus with our configuration and our rules. Two things differ: where the targets are, and that it scrapes more
 * often, so that a run of minutes makes lines. Needs `prometheus` in PATH. @returns where it answers.
 */
export async function startPrometheus(folder: string, { workers, exporters }: Scraped): Promise<string> {
  const config = parse(await readFile(CONFIG, 'utf8')) as Config
  const ports: Readonly<Record<string, readonly number[]>> = { millrace: workers, 'millrace-exporter': exporters }
  const adapted = {
    ...config,
    global: { scrape_interval: `${SCRAPE_SECONDS}s`, scrape_timeout: `${SCRAPE_SECONDS}s`, evaluation_interval: '5s' },
    rule_files: [RULES],
    scrape_configs: config.scrape_configs.map(({ job_name }) => ({
      job_name,
      static_configs: [{ targets: (ports[job_name] ?? []).map((port) => `127.0.0.1:${port}`) }],
    })),
  }
  await mkdir(folder, { recursive: true })
  const file = join(folder, 'prometheus.yml')
  // JSON is YAML.
  await writeFile(file, JSON.stringify(adapted))
  const address = `127.0.0.1:${await freePort()}`
  const data = `--storage.tsdb.path=${join(folder, 'data')}`
  start('prometheus', [`--config.file=${file}`, data, `--web.listen-address=${address}`, '--log.level=warn'])
  const origin = `http://${address}`
  await ready(`${origin}/-/ready`)
  return origin
}

async function ready(url: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const response = await fetch(url).catch(() => undefined)
    if (response?.ok === true) return
    await sleep(200)
  }
  throw new Error('Prometheus did not come up; is `prometheus` in PATH?')
}
