import type { Inspector, StreamStats } from '../../src/index.ts'
import { codeOf } from '../exit.ts'
import type { JobsSeen, Seen, View } from './state.ts'

/** Rows of a list of jobs: more than a screen has. What it costs does not depend on how many there are. */
const MOST_ROWS = 100

/** One look at what a view shows. @param row what the cursor is on. */
export async function look(inspector: Inspector, view: View, row: string | undefined): Promise<Seen> {
  if (view.kind === 'streams') return { kind: 'streams', streams: await inspector.stats() }
  const [stats] = await inspector.stats(view.stream)
  // Of a named stream there is always one.
  const found = stats as StreamStats
  if (view.kind === 'groups') {
    const group = found.groups.find((each) => each.group === row) ?? found.groups[0]
    if (group === undefined) return { kind: 'groups', stats: found, history: undefined }
    const history = await inspector.history(view.stream, group.group).catch((error: unknown) => {
      // Removed in this moment, or of a name that no worker of ours can have.
      if (['ERR_UNKNOWN_GROUP', 'ERR_NAME'].includes(codeOf(error) ?? '')) return undefined
      throw error
    })
    return { kind: 'groups', stats: found, history }
  }
  return { kind: 'jobs', stats: found, of: await lookAtJobs(inspector, view) }
}

async function lookAtJobs(inspector: Inspector, view: View & { kind: 'jobs' }): Promise<JobsSeen> {
  const { stream, group, tab } = view
  switch (tab) {
    case 'pending':
      return { tab, page: await inspector.pending(stream, group, { limit: MOST_ROWS }) }
    case 'dead':
      return { tab, page: await inspector.dead.list(stream, group, { limit: MOST_ROWS }) }
    case 'workers':
      return { tab, page: await inspector.workers(stream, group) }
  }
}
