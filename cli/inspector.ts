import type { Inspector } from '../src/index.ts'
import type { CliContext } from './context.ts'

/** An inspector for one command, closed when the command is done. The library is loaded only now: `--help` needs none. */
export async function withInspector<Told>(
  context: CliContext,
  ask: (inspector: Inspector) => Promise<Told>,
): Promise<Told> {
  const redis = context.redis()
  const { Inspector } = await import('../src/index.ts')
  const inspector = new Inspector({ redis })
  try {
    return await ask(inspector)
  } finally {
    inspector.close()
  }
}
