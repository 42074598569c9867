import { access, chmod, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { findInPath } from '../cli/apt-package.ts'
import { findRedisServer, openRedis, RedisServerError, startRedis } from '../cli/redis-server.ts'
import { startChild } from './helpers/child.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { connectTo } from './helpers/redis.ts'

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  onEnd(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** A PATH on which these programs exist: scripts that print what is given. */
async function pathWith(programs: Record<string, string>): Promise<NodeJS.ProcessEnv> {
  const folder = await temporaryFolder()
  for (const [name, output] of Object.entries(programs)) {
    await writeFile(join(folder, name), `#!/bin/sh\necho '${output}'\n`)
    await chmod(join(folder, name), 0o755)
  }
  return { PATH: folder }
}

const exists = async (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

describe('a private server', () => {
  test('answers, persists nothing, listens on loopback only, and is gone with its directory after stop', async () => {
    const server = await startRedis({ say: console.error })
    onEnd(() => server.stop())
    const client = connectTo(server.url)
    expect(await client.config('GET', 'save', 'appendonly', 'bind')).toEqual(
      expect.arrayContaining(['save', '', 'appendonly', 'no', 'bind', '127.0.0.1']),
    )
    expect(await client.config('GET', 'save')).toEqual(['save', ''])
    expect(server.origin).toMatch(/^(redis|valkey)-server \d+\.\d+\.\d+ .+, private, port \d+$/)
    await Promise.all([server.stop(), server.stop()])
    expect(await exists(server.dir ?? '')).toBe(false)
    expect(() => process.kill(server.pid ?? 0, 0)).toThrow('ESRCH')
  })

  test('takes further arguments, which count before ours', async () => {
    const server = await startRedis({ args: ['--appendonly', 'yes', '--maxmemory', '64mb'] })
    onEnd(() => server.stop())
    const client = connectTo(server.url)
    expect(await client.config('GET', 'appendonly')).toEqual(['appendonly', 'yes'])
    expect(await client.config('GET', 'maxmemory')).toEqual(['maxmemory', `${64 * 1024 * 1024}`])
  })

  test('keeps a directory it was given', async () => {
    const dir = await temporaryFolder()
    const server = await startRedis({ dir, args: ['--appendonly', 'yes'] })
    onEnd(() => server.stop())
    await connectTo(server.url).set('a', 1)
    await server.stop()
    expect(await readdir(dir)).toContain('appendonlydir')
  })

  test('that cannot start says why, in its own words', async () => {
    const started = startRedis({ args: ['--no-such-setting', 'yes'] })
    await expect(started).rejects.toThrow(/did not answer on port[^]*no-such-setting/)
  })

  test('is never taken for the stranger who has its port', async () => {
    const first = await startRedis()
    onEnd(() => first.stop())
    const second = startRedis({ port: Number(new URL(first.url).port) })
    await expect(second).rejects.toThrow(/address already in use/i)
  })

  test.each(['SIGKILL', 'SIGTERM'] as const)('is gone after the %s of the process that started it', async (signal) => {
    const child = startChild(new URL('./fixtures/private-redis.ts', import.meta.url))
    const [, url = '', dir = ''] = await child.line(/^(redis:\S+) (.+)$/)
    child.signal(signal)
    await child.exited
    await eventually(async () => expect(await exists(dir)).toBe(false))
    const client = connectTo(url, { maxRetriesPerRequest: 0, retryStrategy: () => null })
    await expect(client.ping()).rejects.toThrow()
  })
})

describe('which server', () => {
  test('the one of MILLRACE_TEST_REDIS_URL if that is set, its password not shown', async () => {
    const url = 'redis://user:secret@redis.example:7000/3'
    const server = await openRedis({ env: { MILLRACE_TEST_REDIS_URL: url } })
    expect(server).toMatchObject({ url, origin: 'redis://***@redis.example:7000/3 (MILLRACE_TEST_REDIS_URL)' })
    expect(server).not.toHaveProperty('pid')
    await server.stop()
  })

  test('redis-server from PATH, else valkey-server', async () => {
    const valkey = await pathWith({ 'valkey-server': 'Valkey server v=8.1.4 sha=0' })
    expect(await findRedisServer({ env: valkey })).toMatchObject({ version: '8.1.4', from: 'from PATH' })
    const both = await pathWith({ 'redis-server': 'Redis server v=7.4.2 sha=0', 'valkey-server': 'v=8.1.4' })
    expect(await findRedisServer({ env: both })).toMatchObject({ version: '7.4.2' })
  })

  test('a program of that name that does not work is passed over', async () => {
    const env = await pathWith({ 'redis-server': 'what?', 'valkey-server': 'Valkey server v=8.1.4 sha=0' })
    expect(basename((await findRedisServer({ env })).path)).toBe('valkey-server')
  })

  test.each([
    ['darwin', [], 'brew install redis'],
    ['win32', [], 'wsl --install'],
    ['linux', ['dnf'], 'dnf install --assumeyes redis'],
    ['linux', ['apk'], 'apk add redis'],
    ['linux', ['pacman'], 'pacman -S --noconfirm valkey'],
    ['linux', [], 'docker run --rm --publish 6379:6379 redis'],
  ] as const)('none: an error with a command for %s with %j', async (platform, programs, command) => {
    const env = await pathWith(Object.fromEntries(programs.map((program) => [program, ''])))
    const error: unknown = await findRedisServer({ env, platform }).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(RedisServerError)
    expect(error).toMatchObject({ code: 'ERR_NO_REDIS_SERVER' })
    expect((error as Error).message).toContain(command)
  })

  test('an apt that downloads nothing: an error with its last words and the command', async () => {
    const env = await pathWith({ 'dpkg-deb': '' })
    const apt = join(env['PATH'] ?? '', 'apt-get')
    await writeFile(apt, '#!/bin/sh\necho "E: Unable to locate package" >&2\nexit 100\n', { mode: 0o755 })
    const found = findRedisServer({ env, platform: 'linux', cacheDir: await temporaryFolder() })
    await expect(found).rejects.toThrow(/Unable to locate package.*sudo apt-get install --yes redis-server/)
  })
})

describe('the distribution package, unpacked', () => {
  let reason = ''

  beforeAll(async () => {
    const hasApt = (await findInPath('apt-get', process.env)) !== undefined
    if (!hasApt) reason = 'this machine has no apt-get, so there is no package to unpack'
    if (reason !== '') process.stderr.write(`NOT TESTED: ${reason}\n`)
  })

  test('may be unpacked by two at the same time, is kept for later, and leaves nothing else behind', async (context) => {
    context.skip(reason !== '', reason)
    const env = await pathWithoutRedis()
    const cacheDir = await temporaryFolder()
    const said: string[] = []
    const say = (line: string): void => void said.push(line)
    const servers = await Promise.all([startRedis({ env, cacheDir, say }), startRedis({ env, cacheDir, say })])
    for (const server of servers) onEnd(() => server.stop())
    for (const server of servers) expect(await connectTo(server.url).ping()).toBe('PONG')
    expect(servers[0].origin).toContain('unpacked from its Debian package')
    expect(said[0]).toMatch(/no redis-server in PATH.*nothing is installed/)
    const before = said.length
    const found = await findRedisServer({ env, cacheDir, say })
    expect(found.path.startsWith(cacheDir)).toBe(true)
    expect(said).toHaveLength(before)
    expect(await readdir(cacheDir)).toHaveLength(1)
  })

  test('that no longer starts is replaced', async (context) => {
    context.skip(reason !== '', reason)
    const env = await pathWithoutRedis()
    const cacheDir = await temporaryFolder()
    const { path } = await findRedisServer({ env, cacheDir })
    await rm(path)
    expect((await findRedisServer({ env, cacheDir })).path).toBe(path)
  })
})

/** The programs of this machine but Redis. */
async function pathWithoutRedis(): Promise<NodeJS.ProcessEnv> {
  const folder = await temporaryFolder()
  await mkdir(folder, { recursive: true })
  for (const source of (process.env['PATH'] ?? '').split(':').filter((each) => each.startsWith('/'))) {
    const names = await readdir(source).catch(() => [])
    for (const name of names.filter((each) => !/^(redis|valkey)-/.test(each))) {
      await symlink(join(source, name), join(folder, name)).catch(() => {}) // earlier folders come first
    }
  }
  return { ...process.env, PATH: folder }
}
