import { createJiti } from 'jiti'
import { stat } from 'node:fs/promises'
import { extname, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as millrace from '../src/index.ts'

/**
 * Loads the file that a worker takes its handlers from. TypeScript needs no build step: it is translated while it is loaded,
 * with whatever it imports. JavaScript is imported as it is.
 *
 * The file's `import … from 'millrace'` gives this very library, wherever the file lies and whichever version is installed
 * beside it: two copies would not know each other's errors.
 */

const TYPESCRIPT = ['.ts', '.mts', '.cts']
const JAVASCRIPT = ['.js', '.mjs', '.cjs']

/** What a handlers file says. */
export interface LoadedHandlers {
  /** Its default export; whether it is a list or an object of handlers is for the worker to check. */
  readonly handlers: millrace.Handlers
  /** Its export `retry`, for the jobs whose definition does not say. */
  readonly retry: millrace.RetryOptions | undefined
  /** Its export `tracing`: what openTelemetry() of millrace/otel returns. */
  readonly tracing: millrace.Tracing | undefined
  /** Its export `limits`: how many jobs may begin in a time, and run at once. */
  readonly limits: readonly millrace.LimitOptions[] | undefined
  /** Its export `cron`: recurring schedules; whether they are any is for the worker to check. */
  readonly cron: readonly millrace.DeclaredCron[] | undefined
  /** Its export `middleware`: what goes around every run, the first one outermost. */
  readonly middleware: readonly millrace.RunMiddleware[]
}

/**
 * @throws MillraceError ERR_HANDLERS in one line, with what the file itself threw as its cause.
 */
export async function loadHandlers(file: string): Promise<LoadedHandlers> {
  const path = resolve(file)
  await checkFile(file, path)
  const loaded = await load(path).catch((error: unknown) => {
    const message = error instanceof Error ? error.message : String(error)
    // Translators add a picture of the place, module loaders the stack of requires.
    const [first = ''] = message.split(/\n *(?:Require stack:|\n|at )/)
    throw new millrace.MillraceError('ERR_HANDLERS', `cannot load ${file}: ${oneLine(first)}`, { cause: error })
  })
  const handlers = defaultOf(loaded)
  if (handlers !== undefined) {
    return {
      handlers: handlers as millrace.Handlers,
      retry: loaded['retry'] as millrace.RetryOptions | undefined,
      tracing: loaded['tracing'] as millrace.Tracing | undefined,
      limits: loaded['limits'] as readonly millrace.LimitOptions[] | undefined,
      cron: loaded['cron'] as readonly millrace.DeclaredCron[] | undefined,
      middleware: middlewareOf(file, loaded['middleware']),
    }
  }
  const names = Object.keys(loaded).filter((name) => name !== 'default' && name !== '__esModule')
  const got = names.length === 0 ? 'no export' : `only ${names.slice(0, 5).join(', ')}`
  throw handlersError(
    `expected ${file} to export handlers as its default, a list of handle(job, function) or an object of functions ` +
      `by job name, got ${got}`,
  )
}

async function checkFile(file: string, path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined)
  if (found === undefined) {
    const meant = await withExtension(file, path)
    throw handlersError(`the handlers file ${file} does not exist${meant && `; did you mean ${meant}?`}`)
  }
  if (!found.isFile()) throw handlersError(`expected the handlers file ${file} to be a file, got a directory`)
  if ([...TYPESCRIPT, ...JAVASCRIPT].includes(extname(path))) return
  throw handlersError(
    `expected the handlers file to end in ${[...TYPESCRIPT, ...JAVASCRIPT].join(', ')}, got ${JSON.stringify(file)}`,
  )
}

/** The name that somebody meant who left the extension out, or an empty text. */
async function withExtension(file: string, path: string): Promise<string> {
  for (const extension of [...TYPESCRIPT, ...JAVASCRIPT]) {
    if (await stat(path + extension).catch(() => undefined)) return file + extension
  }
  return ''
}

async function load(path: string): Promise<Record<string, unknown>> {
  if (!TYPESCRIPT.includes(extname(path))) {
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>
  }
  const jiti = createJiti(import.meta.url, { virtualModules: { millrace }, interopDefault: false })
  return jiti.import<Record<string, unknown>>(path)
}

/** The default export, also of a file that was translated from a module to CommonJS. */
function defaultOf(loaded: Record<string, unknown>): unknown {
  const given = loaded['default']
  if (typeof given !== 'object' || given === null || !('__esModule' in given)) return given
  return (given as { default?: unknown }).default
}

function middlewareOf(file: string, given: unknown): readonly millrace.RunMiddleware[] {
  if (given === undefined) return []
  if (Array.isArray(given)) return given as millrace.RunMiddleware[]
  throw handlersError(`${file}: expected \`middleware\` to be a list of functions (run, next), got ${typeof given}`)
}

function handlersError(message: string): millrace.MillraceError {
  return new millrace.MillraceError('ERR_HANDLERS', message)
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}
