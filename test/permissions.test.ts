import { expect, test } from 'vitest'
import { NEEDED, type Role } from '../src/redis/permissions.ts'
import * as claiming from '../src/redis/scripts/claim.ts'
import * as delivery from '../src/redis/scripts/delivery.ts'
import { dueCron, fireCron, setCron } from '../src/redis/scripts/cron.ts'
import { forgetConsumers, joinGroup, leaveGroup, pulse } from '../src/redis/scripts/group.ts'
import * as lanes from '../src/redis/scripts/lanes.ts'
import * as limits from '../src/redis/scripts/limit.ts'
import * as outcomes from '../src/redis/scripts/outcomes.ts'
import * as publishing from '../src/redis/scripts/publish.ts'
import { readResults } from '../src/redis/scripts/reply.ts'
import { writeNotes } from '../src/redis/scripts/notes.ts'
import * as schedule from '../src/redis/scripts/schedule.ts'
import type { Script } from '../src/redis/scripts/script.ts'
import * as trimming from '../src/redis/scripts/trim.ts'
import { publishUnique, startUnique } from '../src/redis/scripts/unique.ts'

const cron = { dueCron, fireCron, setCron }
const groups = { forgetConsumers, joinGroup, leaveGroup, pulse }
const RUN_BY: Partial<Record<Role, readonly object[]>> = {
  producer: [publishing, { publishUnique, readResults }],
  worker: [
    claiming,
    cron,
    delivery,
    groups,
    lanes,
    limits,
    outcomes,
    schedule,
    { trim: trimming.trim },
    { startUnique, writeNotes },
  ],
}

/** See there: it is known what does not work without. */
const GOES_WITHOUT = ['XRANGE']

/** `XINFO|GROUPS` for a command with a subcommand, as ACLs write it. */
function commandsOf({ lua }: Script): string[] {
  const calls = lua.matchAll(/redis\.p?call\('([A-Z]+)'(?:, '([A-Z]+)')?/g)
  return [...calls].map(([, name = '', sub]) => (/^(XINFO|XGROUP|MEMORY)$/.test(name) ? `${name}|${sub ?? ''}` : name))
}

test.each(Object.entries(RUN_BY))('all that the scripts of a %s call is among what its user needs', (role, modules) => {
  const scripts = modules.flatMap((module) => Object.values(module) as unknown[]).filter(isScript)
  const called = new Set(scripts.flatMap(commandsOf))

  expect(scripts.length).toBeGreaterThan(4)
  const missing = [...called].filter((name) => !NEEDED[role as Role].includes(name))
  expect(missing).toEqual(role === 'producer' ? GOES_WITHOUT : [])
})

function isScript(value: unknown): value is Script {
  return typeof value === 'object' && value !== null && 'lua' in value
}
