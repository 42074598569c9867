import type { Redis } from 'ioredis'
import { uniqueKey } from './keys.ts'
import type { Member } from './member.ts'
import { run } from './scripts/script.ts'
import { releaseStarted } from './scripts/unique.ts'

/** A job that is about to be started, and the key that it holds until then. */
export interface StartedKey {
  readonly id: string
  readonly key: string
}

/** Lets go of keys whose jobs are about to be started; of one that another job holds by now, nothing. */
export async function releaseKeys(client: Redis, member: Member, started: readonly StartedKey[]): Promise<void> {
  const keys = started.map(({ key }) => uniqueKey(member.stream, key))
  await run(client, releaseStarted, keys, [member.group, ...started.map(({ id }) => id)])
}
