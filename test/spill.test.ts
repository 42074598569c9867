import { existsSync } from 'node:fs'
import { appendFile, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { SpillError } from '../src/index.ts'
import { checkSpill } from '../src/publish/spill-files.ts'
import { headerOf, jobText, lineOf, sequenceText } from '../src/publish/spill-format.ts'
import { writeSpill } from '../src/publish/spill-writing.ts'
import { onItsWay, spilled, spillPath } from './fixtures/spills.ts'
import { thrownBy } from './fixtures/refusals.ts'

const filesBeside = async (path: string) => (await readdir(dirname(path))).sort()

describe('a line of a spill file', () => {
  test.each([
    [{ fields: ['job', 'x', 'data', '"\\n \u2028 \ud83d\ude00 \ud83d \u0000 \\"{}"'] }],
    [
      {
        fields: ['job', 'x', 'data', '1', 'traceparent', '00-1'],
        due: '+60000',
        ref: 'r',
        priority: 9,
        publishedAt: 5,
      },
    ],
    [{ fields: ['job', 'x', 'data', 'null'], due: '1800000000000', token: { text: 'order-1', ttlMs: 1000 } }],
  ])('carries a job as it would have been sent: %j', (item) => {
    const text = jobText('orders', item)
    expect(text).not.toContain('\n')
    expect(lineOf(Buffer.from(text))).toEqual({ kind: 'job', state: 'todo', stream: 'orders', item })
  })

  test('is as long after each thing that is written over it', () => {
    const sequence = { stream: 'orders', jobs: 7, generation: 0, from: 0, owner: '00000000' }
    const later = { ...sequence, generation: 9999, from: 999_999_999_999, owner: 'deadbeef' }
    expect(sequenceText('unknown', later)).toHaveLength(sequenceText('todo', sequence).length)
    expect(lineOf(Buffer.from(sequenceText('begun', later)))).toEqual({
      kind: 'sequence',
      state: 'begun',
      sequence: later,
    })
  })

  test.each([
    ...['', '{', 'null', '[]', '"x"', '{}', '{"state":0}', '{"state":9,"job":{}}', '{"state":0,"job":{"stream":"s"}}'],
    '{"state":0,"job":{"stream":"s","fields":["odd"]}}',
    '{"state":0,"job":{"stream":"s","fields":["job",1]}}',
    '{"state":0,"job":{"stream":"s","fields":["job","x"],"due":"soon"}}',
    '{"state":0,"job":{"stream":"s","fields":["job","x"],"token":"t"}}',
    '{"state":0,"batch":{"stream":"s","producerId":"p","seq":-1,"items":1}}',
    '{"state":0,"sequence":{"stream":"s","jobs":1e99}}',
  ])('that is none of ours is broken, and never an error: %s', (text) => {
    expect(lineOf(Buffer.from(text))).toEqual({ kind: 'broken' })
  })

  test('whose bytes are no UTF-8 is broken', () => {
    const bytes = Buffer.from('{"state":0,"job":{"stream":"s","fields":["job","?"]}}')
    bytes[bytes.indexOf('?')] = 0xff
    expect(lineOf(bytes)).toEqual({ kind: 'broken' })
  })
})

describe('writing a spill file', () => {
  test('puts batches first, then the jobs of each stream in their order, and says at the end that all is there', async () => {
    const path = await spillPath()
    const jobs = [...spilled(2, 3), ...spilled(4, 4, { stream: 'mails' }), ...spilled(5, 5)]
    const written = await writeSpill(path, { batches: [onItsWay(spilled(1, 1))], jobs })
    expect(written).toEqual({ file: path, jobs: 5 })
    const lines = (await readFile(path, 'utf8')).trimEnd().split('\n')
    expect(headerOf(lines[0] ?? '')).toMatchObject({ pid: process.pid, streams: ['orders', 'mails'] })
    const kinds = lines.slice(1).map((line) => lineOf(Buffer.from(line)))
    expect(kinds.map(({ kind }) => kind)).toEqual([
      'batch',
      'job',
      'sequence',
      'job',
      'job',
      'job',
      'sequence',
      'job',
      'end',
    ])
    expect(kinds.flatMap((line) => (line.kind === 'job' ? [line.item.ref] : []))).toEqual([
      'ref-1',
      'ref-2',
      'ref-3',
      'ref-5',
      'ref-4',
    ])
  })

  test('is for nobody else to read', async () => {
    const path = await spillPath()
    await writeSpill(path, { batches: [], jobs: spilled(1, 1) })
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  test('never goes over a file that is there, whatever it is', async () => {
    const path = await spillPath()
    await writeFile(path, 'mine')
    await symlink('/nowhere/at/all', `${path}.2`)
    await mkdir(`${path}.3`)
    const written = await writeSpill(path, { batches: [], jobs: spilled(1, 1) })
    expect(written?.file).toBe(`${path}.4`)
    expect(await readFile(path, 'utf8')).toBe('mine')
  })

  test('of several producers at once gives each its own file', async () => {
    const path = await spillPath()
    const written = await Promise.all([1, 2, 3, 4].map((n) => writeSpill(path, { batches: [], jobs: spilled(n, n) })))
    expect(new Set(written.map((one) => one?.file)).size).toBe(4)
    expect(checkSpill(path)).toHaveLength(4)
  })

  test('makes no file for nothing, nor for a batch whose jobs were all awaited', async () => {
    const path = await spillPath()
    const awaited = spilled(1, 2).map(({ fields }) => ({ fields }))
    expect(await writeSpill(path, { batches: [onItsWay(awaited)], jobs: [] })).toBeUndefined()
    expect(await filesBeside(path)).toEqual([])
  })

  test('takes a batch whole, and counts only the jobs that nobody awaited', async () => {
    const path = await spillPath()
    const [awaited, ...buffered] = spilled(1, 3)
    const batch = onItsWay([{ fields: awaited?.fields ?? [] }, ...buffered])
    expect(await writeSpill(path, { batches: [batch], jobs: [] })).toEqual({ file: path, jobs: 2 })
    expect((await readFile(path, 'utf8')).match(/"job":/g)).toHaveLength(3)
  })

  test.each([
    ['in a folder that is not there', 'missing/spill'],
    ['in what is no folder', 'file/spill'],
    ['under a name that is too long', 'x'.repeat(300)],
  ])('%s fails with a SpillError that says where', async (_, name) => {
    const folder = dirname(await spillPath())
    await writeFile(join(folder, 'file'), '')
    const path = join(folder, name)
    const error: unknown = await writeSpill(path, { batches: [], jobs: spilled(1, 1) }).catch(
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(SpillError)
    expect((error as SpillError).code).toBe('ERR_SPILL')
    expect((error as SpillError).message).toContain(path)
  })

  test('on a disk that becomes full leaves nothing that would be published, and says so', async () => {
    const path = await spillPath()
    const writer = fileURLToPath(new URL('fixtures/spill-writer.ts', import.meta.url))
    const loader = fileURLToPath(new URL('helpers/typescript.js', import.meta.url))
    // 2 MiB, in blocks of 512 bytes: the third write of a mebibyte has no room.
    const command = `ulimit -f 4096; exec "${process.execPath}" --import "${loader}" "${writer}" "${path}" 4000 1000`
    const { stdout, stderr } = spawnSync('sh', ['-c', command], { encoding: 'utf8' })
    expect(`${stdout}${stderr}`).toMatch(
      /^ERR_SPILL cannot write the spill file .*EFBIG.*; nothing of it was left there\n$/,
    )
    expect(existsSync(path)).toBe(false)
  })
})

describe('looking for spill files', () => {
  test('finds the path and those numbered beside it, oldest first, and nothing else', async () => {
    const path = await spillPath()
    for (const n of [1, 2, 3]) await writeSpill(path, { batches: [], jobs: spilled(n, n) })
    const text = await readFile(`${path}.2`, 'utf8')
    await writeFile(`${path}.2`, text.replace(/"at":"\d+/, '"at":"1999'))
    for (const other of ['.02', '.left-12345678', '.bak', '2', '.1x']) await writeFile(`${path}${other}`, 'not ours')
    expect(checkSpill(path).map(({ file }) => basename(file))).toEqual([
      'spill.ndjson.2',
      'spill.ndjson',
      'spill.ndjson.3',
    ])
  })

  test('finds none where there is none', async () => expect(checkSpill(await spillPath())).toEqual([]))

  test.each([
    ['some text', 'hello\nworld\n'],
    ['other JSON', '{"level":30,"msg":"x"}\n'],
    ['a header of nobody', '{"millrace":"spill","version":1}\n'],
    ['a binary', '\u0000\u0001\u0002'],
    ['one long line', 'x'.repeat(200_000)],
  ])('refuses a file that is not ours, and leaves it as it is: %s', async (_, text) => {
    const path = await spillPath()
    await writeFile(path, text)
    const error = thrownBy(() => checkSpill(path))
    expect(error).toBeInstanceOf(SpillError)
    expect(error.message).toMatch(/is not a spill file of millrace, and is left as it is/)
    expect(await readFile(path, 'utf8')).toBe(text)
  })

  test('refuses a file of a later version by its number', async () => {
    const path = await spillPath()
    await writeFile(path, '{"millrace":"spill","version":2,"more":true}\n')
    expect(thrownBy(() => checkSpill(path)).message).toMatch(/it is of version 2, not 1/)
  })

  test('refuses what is no file, without waiting for it', async () => {
    const path = await spillPath()
    await mkdir(path)
    expect(thrownBy(() => checkSpill(path)).message).toMatch(/it is not a regular file/)
    spawnSync('mkfifo', [`${path}.pipe`])
    expect(thrownBy(() => checkSpill(`${path}.pipe`)).message).toMatch(/it is not a regular file/)
  })

  test('refuses a folder that is not there before a shutdown needs it', async () => {
    const path = join(await spillPath(), 'spill')
    const error = thrownBy(() => checkSpill(path))
    expect(error).toBeInstanceOf(SpillError)
    expect(error.message).toMatch(/ENOENT.*give a path in a folder that is there/)
  })

  test.each(['', '{"mill', '{"millrace":"spill","version":1,"id":"12'])(
    'passes over a file whose writer was killed before it said anything: %j',
    async (text) => {
      const path = await spillPath()
      await writeFile(path, text)
      expect(checkSpill(path)).toEqual([])
      await appendFile(path, '')
      expect((await writeSpill(path, { batches: [], jobs: spilled(1, 1) }))?.file).toBe(`${path}.2`)
    },
  )
})
