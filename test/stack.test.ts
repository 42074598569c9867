import { access, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'

const root = join(import.meta.dirname, '..')
const read = async (path: string): Promise<unknown> => parse(await readFile(join(root, path), 'utf8'), { merge: true })

interface Service {
  readonly image: string
  readonly ports?: readonly string[]
  readonly volumes?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly read_only?: boolean
  readonly security_opt?: readonly string[]
}

const { services } = (await read('docker-compose.yml')) as { services: Readonly<Record<string, Service>> }
const all = Object.entries(services).map(([name, service]) => ({ name, ...service }))
const mounts = all.flatMap(({ volumes = [] }) => volumes).filter((volume) => volume.startsWith('./'))

describe('docker-compose.yml', () => {
  test('mounts what is there, and nothing that a container could change', async () => {
    expect(mounts.length).toBeGreaterThan(5)
    for (const mount of mounts) {
      const [from = '', , mode] = mount.split(':')
      await access(join(root, from))
      expect([mount, mode]).toEqual([mount, 'ro'])
    }
  })

  test.each(all)('$name is on the loopback interface at most, and cannot change its own files', (service) => {
    expect((service.ports ?? []).filter((port) => !port.startsWith('127.0.0.1:'))).toEqual([])
    expect(service.read_only).toBe(true)
    expect(service.security_opt).toContain('no-new-privileges:true')
  })

  test('Grafana has a version, the overview for its home, and nobody who may change anything', async () => {
    const { image, environment = {} } = services['grafana'] as Service
    expect(image).toMatch(/^grafana\/grafana:\d+\.\d+\.\d+$/)
    const home = environment['GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH'] ?? ''
    const { providers } = (await read('grafana/provisioning/dashboards/millrace.yml')) as {
      providers: readonly { allowUiUpdates: boolean; options: { path: string } }[]
    }
    expect(providers).toHaveLength(1)
    expect(providers[0]).toMatchObject({ allowUiUpdates: false, options: { path: home.replace(/\/[^/]+$/, '') } })
    expect(mounts).toContain(`./grafana/dashboards:${providers[0]?.options.path ?? ''}:ro`)
    await access(join(root, 'grafana/dashboards', basename(home)))
    expect(environment).toMatchObject({
      GF_AUTH_ANONYMOUS_ORG_ROLE: 'Viewer',
      GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION: 'true',
    })
  })

  test('Grafana asks the Prometheus of the stack, as often as that scrapes', async () => {
    const { datasources } = (await read('grafana/provisioning/datasources/prometheus.yml')) as {
      datasources: readonly { uid: string; url: string; jsonData: { timeInterval: string } }[]
    }
    const { global } = (await read('grafana/prometheus/prometheus.yml')) as { global: { scrape_interval: string } }
    expect(datasources).toHaveLength(1)
    expect(datasources[0]).toMatchObject({
      uid: 'millrace-prometheus',
      url: 'http://prometheus:9090',
      jsonData: { timeInterval: global.scrape_interval },
    })
  })

  test('Prometheus scrapes services that there are', async () => {
    const { scrape_configs: configs } = (await read('grafana/prometheus/prometheus.yml')) as {
      scrape_configs: readonly { dns_sd_configs: readonly { names: readonly string[] }[] }[]
    }
    const names = configs.flatMap((config) => config.dns_sd_configs.flatMap((each) => each.names))
    expect(Object.keys(services)).toEqual(expect.arrayContaining(names))
    expect(names).toContain('exporter')
  })
})
