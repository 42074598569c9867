import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const FIXTURE = `${ROOT}test/fixtures/types/typed-jobs.ts`

test('the types refuse a wrong payload, a missing handler, a wrong result and a wrong name, and nothing that is right', () => {
  const { config } = ts.readConfigFile(`${ROOT}tsconfig.json`, (path) => ts.sys.readFile(path)) as { config: object }
  const { options } = ts.parseJsonConfigFileContent({ ...config, include: [], files: [FIXTURE] }, ts.sys, ROOT)
  const program = ts.createProgram([FIXTURE], options)
  const source = program.getSourceFile(FIXTURE)
  expect(source?.text.match(/@ts-expect-error: /g)?.length).toBeGreaterThanOrEqual(40)

  const told = program.getSemanticDiagnostics(source).map(({ start = 0, messageText }) => {
    const line = (source?.getLineAndCharacterOfPosition(start).line ?? 0) + 1
    return `${line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
  })
  expect(told).toEqual([])
})
