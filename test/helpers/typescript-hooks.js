/**
 * Module hooks that translate `.ts` files and touch nothing else. Translations are kept by content, so that a thread
 * starts in a tenth of a second: loading the compiler alone would take five times as long, for every thread anew.
 */
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { fileURLToPath, URL } from 'node:url'

const cache = new URL('../../node_modules/.cache/millrace/typescript/', import.meta.url)

export async function load(url, context, nextLoad) {
  if (!url.startsWith('file:') || !url.endsWith('.ts')) return nextLoad(url, context)
  const text = await readFile(fileURLToPath(url), 'utf8')
  const kept = new URL(`${createHash('sha256').update(`${url}\0${text}`).digest('hex')}.js`, cache)
  const source = await readFile(kept, 'utf8').catch(() => translate(url, text, kept))
  return { format: 'module', source, shortCircuit: true }
}

async function translate(url, text, kept) {
  const { default: ts } = await import('typescript')
  const { ModuleKind, ScriptTarget } = ts
  const compilerOptions = { module: ModuleKind.ESNext, target: ScriptTarget.ES2023, verbatimModuleSyntax: true }
  const { outputText } = ts.transpileModule(text, {
    fileName: fileURLToPath(url),
    compilerOptions: { ...compilerOptions, inlineSourceMap: true, inlineSources: true },
  })
  // Written aside and renamed: another thread must not read half of it.
  const draft = new URL(`${randomUUID()}.draft`, cache)
  await mkdir(cache, { recursive: true })
  await writeFile(draft, outputText)
  await rename(draft, kept)
  return outputText
}
