import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { onEnd } from './helpers/cleanup.ts'
import { knownMetrics, metricOfSeries } from './helpers/metric-names.ts'
import { findPrometheus, type PrometheusPrograms } from './helpers/prometheus-package.ts'
import { commandLines, sections } from './helpers/runbook.ts'
import {
  PROMETHEUS_FOLDER,
  readAlertCases,
  readAlertmanager,
  readRules,
  RULE_TESTS_FOLDER,
  RULES_FOLDER,
  selectorsOf,
  ymlIn,
} from './helpers/rules.ts'
import { millrace } from './cli/run.ts'

/** The rules: that promtool accepts them, that each alert fires when it should and only then, and that it leads somewhere. */

const run = promisify(execFile)
const rules = readRules()
const alerts = rules.filter(({ alert }) => alert !== undefined)
const alertNames = alerts.map(({ alert = '' }) => alert)
const cases = readAlertCases()
const runbook = readFileSync(join(import.meta.dirname, '../docs/runbook.md'), 'utf8')

describe('promtool', () => {
  let programs: PrometheusPrograms
  beforeAll(async () => {
    programs = await findPrometheus()
  })

  /** What it says, and that it is content. */
  async function promtool(...args: string[]): Promise<{ said: string; isContent: boolean }> {
    // It makes much garbage, and a third of its time would be for collecting it.
    const env = { ...programs.env, GOGC: '400' }
    const options = { cwd: RULE_TESTS_FOLDER, env, timeout: 110_000 }
    const told = await run(programs.promtool, args, options).catch((error: { stdout: string; stderr: string }) => error)
    return { said: told.stdout + told.stderr, isContent: !(told instanceof Error) }
  }

  test('that is nowhere to be had is a failure which says what to install, never a test that is skipped', async () => {
    const cacheDir = await mkdtemp(join(tmpdir(), 'millrace-test-'))
    onEnd(() => rm(cacheDir, { recursive: true, force: true }))
    const nowhere = findPrometheus({ env: { PATH: '' }, cacheDir })
    await expect(nowhere).rejects.toThrow('these tests need prometheus and promtool: install them')
  })

  test('accepts the rules and the configuration', async () => {
    const paths = ymlIn(RULES_FOLDER).map((name) => join(RULES_FOLDER, name))
    const checks = [
      promtool('check', 'rules', ...paths),
      promtool('check', 'config', '--syntax-only', join(PROMETHEUS_FOLDER, 'prometheus.yml')),
    ]
    for (const { said, isContent } of await Promise.all(checks)) expect(isContent, said).toBe(true)
  })

  test.concurrent.each(ymlIn(RULE_TESTS_FOLDER))(
    'sees every alert of tests/%s fire and stay silent as it says',
    async (name) => {
      const { said, isContent } = await promtool('test', 'rules', name)
      expect(isContent, said).toBe(true)
    },
    120_000,
  )
})

describe('every alert', () => {
  test('is seen to fire and to stay silent', () => {
    const fired = new Set(cases.filter(({ expected }) => expected > 0).map(({ alert }) => alert))
    const silent = new Set(cases.filter(({ expected }) => expected === 0).map(({ alert }) => alert))
    expect({
      neverFires: alertNames.filter((name) => !fired.has(name)),
      neverSilent: alertNames.filter((name) => !silent.has(name)),
      unknown: cases.map(({ alert }) => alert).filter((name) => !alertNames.includes(name)),
    }).toEqual({ neverFires: [], neverSilent: [], unknown: [] })
  })

  test('has a name of its own, a severity, and says what is wrong, what it means and what to run', () => {
    expect(new Set(alertNames).size).toBe(alertNames.length)
    const poor = alerts.filter(({ labels = {}, annotations = {}, alert = '', for: patience }) => {
      const { summary = '', description = '', runbook_url: url } = annotations
      const isWhole =
        /^Millrace[A-Z]/.test(alert) &&
        ['page', 'ticket'].includes(labels['severity'] ?? '') &&
        summary.length > 10 &&
        summary.length < 160 &&
        /: (millrace|promtool) /.test(description) &&
        url === `docs/runbook.md#${alert.toLowerCase()}` &&
        patience !== undefined
      return !isWhole
    })
    expect(poor.map(({ alert }) => alert)).toEqual([])
  })

  test('that is told, or kept quiet, by the Alertmanager is one that there is, and none keeps itself quiet', () => {
    const { inhibit_rules: inhibitions } = readAlertmanager()
    expect(inhibitions.length).toBeGreaterThan(0)
    for (const { source_matchers: source, target_matchers: target } of inhibitions) {
      const [from, to] = [source, target].map((matchers) => alertsOf(matchers))
      expect(from?.filter((name) => to?.includes(name))).toEqual([])
    }
  })

  test('has a section in the runbook, and every section there belongs to an alert', () => {
    expect([...sections(runbook).keys()].sort()).toEqual([...alertNames].sort())
  })

  test('stands in the table at the top of the runbook, with its severity and how long it waits', () => {
    const rows = [...runbook.matchAll(/^\| \[`(Millrace\w+)`\]\((#\w+)\) +\| (page|ticket) +\|.*\| (\w+) +\|/gm)]
    const shown = rows.map(([, alert, link, severity, patience]) => ({ alert, link, severity, patience }))
    const meant = alerts.map(({ alert = '', labels, for: patience }) => ({
      alert,
      link: `#${alert.toLowerCase()}`,
      severity: labels?.['severity'],
      patience,
    }))
    expect(shown).toEqual(meant)
  })
})

describe('every section of the runbook', () => {
  test('tells what it means, what to look at, why, how to repair it, and when it is over', () => {
    const parts = ['Means', 'Look', 'Causes', 'Repair', 'Over']
    const poor = [...sections(runbook)].filter(([, text]) => !parts.every((part) => text.includes(`**${part}.**`)))
    expect(poor.map(([name]) => name)).toEqual([])
  })

  test('names only commands that there are, with options that they have', async () => {
    const lines = commandLines(runbook)
    expect(lines.length).toBeGreaterThan(20)
    const told = new Map<string, string>()
    const wrong: string[] = []
    for (const { line, words, options } of lines) {
      const command = words.join(' ')
      if (!told.has(command)) told.set(command, await helpOf(words))
      const help = told.get(command) ?? ''
      const unknown = options.filter((option) => !new RegExp(`(^|[ ,])${option}\\b`, 'm').test(help))
      if (help === '' || unknown.length > 0) wrong.push(`${line} (${unknown.join() || 'no such command'})`)
    }
    expect(wrong).toEqual([])
  }, 120_000)
})

/** The alerts that are chosen by name. @throws Error for a name, or an alternative of a pattern, that no alert has. */
function alertsOf(matchers: readonly string[]): string[] {
  return matchers.flatMap((matcher) => {
    const [, patterns = ''] = /^alertname=~?"([^"]+)"$/.exec(matcher) ?? []
    return patterns.split('|').flatMap((pattern) => {
      const chosen = alertNames.filter((name) => new RegExp(`^(?:${pattern})$`).test(name))
      if (chosen.length === 0) throw new Error(`${matcher}: there is no ${pattern}`)
      return chosen
    })
  })
}

/** Empty if there is no such command: an unknown one prints the help of what is above it. */
async function helpOf(words: readonly string[]): Promise<string> {
  const { code, stdout } = await millrace([...words, '--help'])
  return code === 0 && stdout.startsWith(`Usage: millrace ${words.join(' ')} `) ? stdout : ''
}

describe('the rules name', () => {
  const recorded = new Set(rules.flatMap(({ record = [] }) => record))
  const known = knownMetrics()

  test('only metrics that there are, by labels that they have', () => {
    /** What Prometheus itself adds. */
    const always = ['job', 'instance']
    const wrong = rules.flatMap(({ expr, alert, record }) =>
      selectorsOf(expr).flatMap(({ name, labels }) => {
        if (name === 'up') return labels.filter((label) => !always.includes(label))
        const metric = metricOfSeries(name, known)
        if (metric === undefined) return recorded.has(name) ? [] : [`${alert ?? record}: ${name}`]
        const own = [...always, ...(known.get(metric)?.labels ?? []), ...(name.endsWith('_bucket') ? ['le'] : [])]
        return labels.filter((label) => !own.includes(label)).map((label) => `${alert ?? record}: ${name}{${label}}`)
      }),
    )
    expect(wrong).toEqual([])
  })

  test('counters only where their growth is taken', () => {
    const bare = rules.filter(({ expr }) =>
      [...expr.matchAll(/(\w+_total)(\{[^}]*\})?(\[)?/g)].some(([, , , range]) => range === undefined),
    )
    // Only whether it is there at all.
    expect(bare.map(({ alert, record }) => alert ?? record)).toEqual(['MillraceLagUnknown'])
  })

  test('every threshold that there is, and none that is not', () => {
    const thresholds = rules.flatMap(({ record = '' }) => (record.endsWith(':threshold') ? [record] : []))
    const named = alerts
      .filter(({ alert }) => alert !== 'MillraceThresholdsMissing')
      .flatMap(({ expr }) => selectorsOf(expr).map(({ name }) => name))
    expect([...new Set(named.filter((name) => name.endsWith(':threshold')))].sort()).toEqual([...thresholds].sort())
    const watched = alerts.find(({ alert }) => alert === 'MillraceThresholdsMissing')?.expr ?? ''
    expect([...new Set(selectorsOf(watched).map(({ name }) => name))].sort()).toEqual([...thresholds].sort())
  })

  test('numbers only in thresholds.yml, but for factors, windows and 0 or 1', () => {
    const stray = alerts.filter(({ expr }) => /(?:[<>]=?|==)\s*(?!0\b|1\b|14\.4 \*|6 \*|1 \*)[\d.]+/.test(expr))
    expect(stray.map(({ alert }) => alert)).toEqual([])
  })
})
