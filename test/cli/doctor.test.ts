import { describe, expect, test } from 'vitest'
import { diagnosisLines, summaryLine } from '../../cli/doctor/text.ts'
import { widthOf } from '../../cli/width.ts'
import type { Diagnosis } from '../../src/index.ts'
import { STREAMS_KEY } from '../../src/redis/keys.ts'
import { makeGroup } from '../helpers/dead.ts'
import { connectTo, startServer } from '../helpers/redis.ts'
import { add } from '../helpers/workers.ts'
import { millrace } from './run.ts'

const sound = () => startServer({ args: ['--appendonly', 'yes', '--maxmemory', '1gb'] })
const doctor = (redis: string, ...args: string[]) => millrace(['doctor', ...args], { redis })

describe('millrace doctor', () => {
  test('ends with 0 where nothing failed, with --strict for a warning with 1, and with 1 where something failed', async () => {
    const { url } = await sound()
    const client = connectTo(url)
    expect(await doctor(url)).toMatchObject({ code: 0, stderr: '' })
    expect(await doctor(url, '--strict')).toMatchObject({ code: 0 })
    await makeGroup(client)
    await client.sadd(STREAMS_KEY, 'orders')
    await add(client, 'none')
    expect(await doctor(url)).toMatchObject({ code: 0 })
    expect(await doctor(url, '--strict')).toMatchObject({ code: 1 })
    await client.config('SET', 'maxmemory-policy', 'allkeys-lru')
    const { code, stdout } = await doctor(url)
    expect(code).toBe(1)
    const [, failed = '', warnings = ''] = /^Failed\n([^]+?)\n\nWarnings\n([^]+?)\n\n/.exec(stdout) ?? []
    expect(failed).toContain('  eviction: maxmemory-policy allkeys-lru.')
    expect(failed).toContain('    fix: CONFIG SET maxmemory-policy noeviction')
    expect(warnings).toContain('  no-workers orders/main: no worker, and 1 job unread, 0 pending.')
    expect(warnings).toMatch(/fix:\s+millrace worker handlers\.ts --stream orders --group main$/m)
    expect(stdout.trimEnd().split('\n').at(-1)).toMatch(/^1 failed, 1 warning, \d notes?; Redis [\d.]+, 1 stream$/)
    expect(stdout.split('\n').filter((line) => line.length > 80)).toEqual([])
  })

  test('ends with 3 where Redis cannot be reached, 4 for a stream that there is not, 2 for a wrong name', async () => {
    const server = await sound()
    expect(await doctor(server.url, 'nothing')).toMatchObject({ code: 4, stdout: '' })
    expect(await doctor(server.url, 'no stream')).toMatchObject({ code: 2, stdout: '' })
    await server.stop()
    expect(await doctor(server.url)).toMatchObject({ code: 3, stdout: '' })
  })

  test('prints one document of stable names with --json', async () => {
    const { url } = await sound()
    const { code, stdout } = await doctor(url, '--json')
    const told = JSON.parse(stdout) as Diagnosis
    expect([code, told]).toEqual([
      0,
      {
        schemaVersion: 1,
        at: expect.any(String) as string,
        server: { software: expect.stringMatching(/redis|valkey/) as string, version: expect.any(String) as string },
        streams: 0,
        more: false,
        findings: expect.any(Array) as unknown,
      },
    ])
    for (const finding of told.findings) {
      expect(Object.keys(finding).sort()).toEqual(['check', 'fix', 'found', 'level', 'where', 'why'])
    }
  })

  test('shows names of other peoples’ making as text', async () => {
    const { url } = await sound()
    const client = connectTo(url)
    await client.xgroup('CREATE', 'orders', '\x1b[2Jevil\ngroup', '0', 'MKSTREAM')
    await client.xadd('orders', '1-0', 'job', 'none')
    await client.sadd(STREAMS_KEY, 'orders')
    const { stdout } = await doctor(url)
    expect(stdout).toContain('[2Jevil group')
    expect(stdout).not.toMatch(/\x1b/) // eslint-disable-line no-control-regex
  })
})

test('a long finding is set in lines of 80 columns, and a command that is longer has its own, uncut', () => {
  const fix = `millrace groups remove orders ${'g'.repeat(60)}`
  const finding = { check: 'abandoned', level: 'warn', where: { stream: 'orders', group: 'g'.repeat(60) } } as const
  const findings = [{ ...finding, found: 'word '.repeat(30).trim(), why: 'because '.repeat(20).trim(), fix }]
  const diagnosis: Diagnosis = { findings, server: null, streams: 2, more: false }
  const lines = diagnosisLines(diagnosis, { stdout: process.stdout, columns: 80 })
  expect(lines.filter((line) => widthOf(line) > 80)).toEqual([`      ${fix}`])
  expect(summaryLine(diagnosis)).toBe('0 failed, 1 warning, 0 notes; a Redis of unknown version, 2 streams')
})
