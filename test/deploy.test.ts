import { Ajv } from 'ajv'
import { execFile, execFileSync } from 'node:child_process'
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseAllDocuments, stringify } from 'yaml'
import { durationMs } from '../cli/duration.ts'
import { millrace } from './cli/run.ts'
import { onEnd } from './helpers/cleanup.ts'
import { DEPLOYMENT, SCALED_OBJECT } from './helpers/manifests.ts'
import { findPrometheus } from './helpers/prometheus-package.ts'

/** The files of docs/deploy, as the programs that read them see them. */

const FOLDER = join(import.meta.dirname, '..', 'docs', 'deploy')
const run = promisify(execFile)
const has = (program: string): boolean => {
  try {
    execFileSync('which', [program], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const read = (name: string) => readFile(join(FOLDER, name), 'utf8')

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-deploy-'))
  onEnd(() => rm(folder, { recursive: true, force: true }))
})

interface Container {
  readonly args: readonly string[]
  readonly env: readonly { name: string; valueFrom?: { secretKeyRef?: object } }[]
  readonly livenessProbe: { httpGet: { path: string } }
  readonly readinessProbe?: { httpGet: { path: string } }
  readonly securityContext: object
  readonly resources: { requests: object; limits: object }
  readonly lifecycle?: object
}

interface Manifest {
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly selector: { readonly matchLabels: object }
    readonly template: {
      readonly metadata: { readonly labels: object }
      readonly spec: { readonly terminationGracePeriodSeconds: number; readonly containers: readonly [Container] }
    }
  }
}

async function manifests(name: string): Promise<Manifest[]> {
  return parseAllDocuments(await read(name)).map((document) => {
    expect(document.errors).toEqual([])
    return document.toJS() as Manifest
  })
}

const after = (words: readonly string[], flag: string) => words[words.indexOf(flag) + 1] ?? ''

/** Flags of a command line that the command does not have. */
async function unknownFlags(words: readonly string[]): Promise<string[]> {
  const { stdout } = await millrace([words[0] ?? '', '--help'])
  return words.filter((word) => word.startsWith('--') && !stdout.includes(`${word} `))
}

test('docs/deploy.md leads to every file beside it, and names alerts that there are', async () => {
  const page = await readFile(join(FOLDER, '..', 'deploy.md'), 'utf8')
  const files = await readdir(FOLDER)
  expect(files.filter((name) => !page.includes(`](deploy/${name})`))).toEqual([])
  const rules = await readFile(join(FOLDER, '../../grafana/prometheus/rules/alerts.yml'), 'utf8')
  const alerts = page.match(/`Millrace[A-Z]\w+`/g) ?? []
  expect(alerts.filter((name) => !rules.includes(`alert: ${name.replaceAll('`', '')}\n`))).toEqual([])
})

describe('the systemd units', () => {
  test.skipIf(!has('systemd-analyze'))('are sound to systemd', async () => {
    await copyFile(join(FOLDER, 'millrace-worker@.service'), join(folder, 'millrace-worker@orders.service'))
    await copyFile(join(FOLDER, 'millrace-exporter.service'), join(folder, 'millrace-exporter.service'))
    const units = ['millrace-worker@orders.service', 'millrace-exporter.service'].map((name) => join(folder, name))
    const { stdout, stderr } = await run('systemd-analyze', ['verify', '--man=no', ...units])
    expect(ofOurs(stdout + stderr)).toEqual([])
    await writeFile(
      units[1] ?? '',
      (await read('millrace-exporter.service')).replace('Restart=always', 'Restart=mostly'),
    )
    const bent = await run('systemd-analyze', ['verify', '--man=no', ...units])
    expect(ofOurs(bent.stdout + bent.stderr), 'a unit that is wrong').not.toEqual([])
  })

  test('give a drain its time, take secrets from a file, and call flags that there are', async () => {
    const unit = await read('millrace-worker@.service')
    const words = (/^ExecStart=\/usr\/bin\/env millrace (.*)$/m.exec(unit)?.[1] ?? '').split(' ')
    const stopMs = durationMs(/^TimeoutStopSec=(.*)$/m.exec(unit)?.[1] ?? '')
    expect(stopMs).toBeGreaterThanOrEqual(durationMs(after(words, '--drain')) + 10_000)
    expect(words).not.toContain('--redis')
    expect(unit).toMatch(/^EnvironmentFile=/m)
    expect(unit).not.toMatch(/^WatchdogSec/m)
    expect(await unknownFlags(words)).toEqual([])
    const exporter = /^ExecStart=\/usr\/bin\/env millrace (.*)$/m.exec(await read('millrace-exporter.service'))?.[1]
    expect(await unknownFlags((exporter ?? '').split(' '))).toEqual([])
  })
})

/** Others of the machine are verified along with ours. */
function ofOurs(said: string): string[] {
  return said.split('\n').filter((line) => line.includes('millrace-'))
}

describe('the Kubernetes manifests', () => {
  test.each(['worker.yaml', 'exporter.yaml'])('%s has the shape that Kubernetes wants', async (name) => {
    const ajv = new Ajv({ allErrors: true })
    const [deployment] = await manifests(name)
    ajv.validate(DEPLOYMENT, deployment)
    expect(ajv.errors).toBeNull()
    expect(deployment?.spec.template.metadata.labels).toEqual(deployment?.spec.selector.matchLabels)
    const container = deployment?.spec.template.spec.containers[0]
    expect(container?.securityContext).toMatchObject({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true })
    expect(container?.args).not.toContain('--redis')
    expect(container?.env[0]).toMatchObject({ name: 'MILLRACE_REDIS_URL', valueFrom: { secretKeyRef: {} } })
  })

  test('exporter.yaml calls flags that there are, and is probed where an exporter answers', async () => {
    const [deployment] = await manifests('exporter.yaml')
    const [{ args, livenessProbe }] = deployment?.spec.template.spec.containers as [Container]
    expect(await unknownFlags(args)).toEqual([])
    expect((await millrace(['exporter', '--help'])).stdout).toContain(livenessProbe.httpGet.path)
  })

  test('worker.yaml gives a drain its time, and is probed where a worker answers', async () => {
    const [deployment, budget] = await manifests('worker.yaml')
    const { terminationGracePeriodSeconds, containers } = deployment?.spec.template.spec ?? {}
    const [{ args, livenessProbe, readinessProbe, lifecycle }] = containers as [Container]
    expect(terminationGracePeriodSeconds).toBeGreaterThanOrEqual(durationMs(after(args, '--drain')) / 1000 + 10)
    expect([livenessProbe.httpGet.path, readinessProbe?.httpGet.path, lifecycle]).toEqual([
      '/livez',
      '/readyz',
      undefined,
    ])
    expect(await unknownFlags(args)).toEqual([])
    expect(budget?.kind).toBe('PodDisruptionBudget')
    expect(deployment?.spec.selector.matchLabels).toEqual(budget?.spec.selector.matchLabels)
  })
})

interface Trigger {
  readonly name: string
  readonly metadata: Readonly<Record<string, string>>
}

async function triggers(): Promise<readonly Trigger[]> {
  const [scaled] = (await manifests('keda.yaml')) as unknown as { spec: { triggers: Trigger[] } }[]
  return scaled?.spec.triggers ?? []
}

describe('keda.yaml', () => {
  test('has the shape that KEDA wants, and an error for what is missing', async () => {
    const ajv = new Ajv({ allErrors: true })
    const [scaled] = await manifests('keda.yaml')
    ajv.validate(SCALED_OBJECT, scaled)
    expect(ajv.errors).toBeNull()
    const [deployment] = await manifests('worker.yaml')
    expect(scaled).toMatchObject({ spec: { scaleTargetRef: { name: deployment?.metadata.name } } })
    for (const { metadata } of await triggers()) expect(metadata['ignoreNullValues']).toBe('false')
  })

  test('asks for metrics that there are', async () => {
    const told = await readFile(join(FOLDER, '..', 'metrics.md'), 'utf8')
    const asked = (await triggers()).flatMap(({ metadata }) => metadata['query']?.match(/millrace_\w+/g) ?? [])
    expect(asked.length).toBeGreaterThan(8)
    expect(asked.filter((name) => !told.includes(`| \`${name}\` `))).toEqual([])
  })

  test('asks for workers as there is work, and for none only when nothing is left', async () => {
    const [backlog, anything] = await triggers()
    const file = join(folder, 'keda.test.yml')
    const tests = CASES.map(({ name, series, ...wanted }) => ({
      name,
      interval: '1m',
      input_series: inputSeries(series),
      promql_expr_test: [
        { expr: backlog?.metadata['query'], eval_time: '10m', exp_samples: samples(wanted.backlog) },
        { expr: anything?.metadata['query'], eval_time: '10m', exp_samples: samples(wanted.anything) },
      ],
    }))
    await writeFile(file, stringify({ evaluation_interval: '1m', tests }))
    const { promtool, env } = await findPrometheus()
    const { stdout } = await run(promtool, ['test', 'rules', file], { env }).catch((error: unknown) => {
      throw new Error(
        String((error as { stderr?: string; stdout?: string }).stdout) + String((error as { stderr?: string }).stderr),
      )
    })
    expect(stdout).toContain('SUCCESS')
  })
})

interface Case {
  readonly name: string
  readonly series: Readonly<Record<string, number | null>>
  /** Null is no answer, which KEDA takes for an error. */
  readonly backlog: number | null
  readonly anything: number | null
}

const CASES: readonly Case[] = [
  { name: 'nothing to do', series: {}, backlog: 0, anything: 0 },
  { name: 'running jobs keep a worker', series: { millrace_group_pending_jobs: 3 }, backlog: 3, anything: 3 },
  { name: 'waiting retries keep a worker', series: { millrace_group_scheduled_jobs: 2 }, backlog: 0, anything: 2 },
  {
    name: 'retries that were set aside do not',
    series: { millrace_group_scheduled_jobs: 2, millrace_group_set_aside_jobs: 2 },
    backlog: 0,
    anything: 0,
  },
  {
    name: 'jobs that wait bring workers',
    series: { millrace_group_lag_jobs: 250, millrace_group_lag_seconds: 4 },
    backlog: 250,
    anything: 1,
  },
  {
    name: 'jobs of which Redis does not know how many bring one',
    series: { millrace_group_lag_jobs: null, millrace_group_lag_seconds: 4 },
    backlog: 100,
    anything: 1,
  },
  {
    name: 'a lag that is not known of nothing brings none',
    series: { millrace_group_lag_jobs: null },
    backlog: 0,
    anything: 0,
  },
  {
    name: 'delayed publishes that are overdue bring one',
    series: { millrace_stream_scheduled_overdue_jobs: 7, millrace_stream_scheduled_next_due_timestamp_seconds: 1 },
    backlog: 7,
    anything: 8,
  },
  {
    name: 'one that is due soon brings one before it is',
    series: { millrace_stream_scheduled_next_due_timestamp_seconds: 700 },
    backlog: 0,
    anything: 1,
  },
  {
    name: 'one that is due in an hour does not yet',
    series: { millrace_stream_scheduled_next_due_timestamp_seconds: 4200 },
    backlog: 0,
    anything: 0,
  },
  {
    name: 'retries that are overdue count as work',
    series: { millrace_group_scheduled_jobs: 5, millrace_group_scheduled_overdue_jobs: 5 },
    backlog: 5,
    anything: 5,
  },
  { name: 'without an exporter there is no answer', series: { all: null }, backlog: null, anything: null },
]

/** What two exporters tell of an idle group, but for what the case says; of another group and stream there is a lot to do. */
function inputSeries(told: Readonly<Record<string, number | null>>): { series: string; values: string }[] {
  const isScheduled = 'millrace_stream_scheduled_next_due_timestamp_seconds' in told
  const ofGroup = [
    'lag_jobs',
    'lag_seconds',
    'pending_jobs',
    'scheduled_jobs',
    'set_aside_jobs',
    'scheduled_overdue_jobs',
  ]
  const names = [
    ...ofGroup.map((name) => [`millrace_group_${name}`, ',group="main"'] as const),
    ['millrace_stream_scheduled_overdue_jobs', ''] as const,
    ...(isScheduled ? [['millrace_stream_scheduled_next_due_timestamp_seconds', ''] as const] : []),
  ]
  const isGone = 'all' in told
  return ['a', 'b'].flatMap((instance) => [
    ...names
      .filter(([name]) => !isGone && told[name] !== null)
      .map(([name, labels]) => ({
        series: `${name}{stream="orders"${labels},instance="${instance}"}`,
        values: `${told[name] ?? 0}x20`,
      })),
    { series: `millrace_group_pending_jobs{stream="orders",group="billing",instance="${instance}"}`, values: '900x20' },
    { series: `millrace_group_pending_jobs{stream="other",group="main",instance="${instance}"}`, values: '900x20' },
  ])
}

function samples(value: number | null): { labels: string; value: number }[] {
  return value === null ? [] : [{ labels: '{}', value }]
}
