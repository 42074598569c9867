import type { Redis } from 'ioredis'
import { scheduledJobsKey, scheduledKey, settingsKey } from './keys.ts'
import type { Member, Source } from './member.ts'
import type { Item } from './publishing.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { settlePublishing } from './scripts/onward.ts'
import { run, type Argument } from './scripts/script.ts'
import { completedArguments, type Completed } from './settling.ts'

/** A completion with what its run publishes to streams of its own slot: one at least. */
export interface CompletedPublishing extends Completed {
  readonly publishing: readonly { readonly stream: string; readonly item: Pick<Item, 'fields' | 'due'> }[]
}

/**
 * What became of one. `late`: it was settled already, and nothing of it was published now. `left`: it is still pending,
 * since this stream cannot take what it publishes.
 */
export type PublishingFate =
  | { readonly kind: 'settled'; readonly ids: readonly string[] }
  | { readonly kind: 'late' }
  | { readonly kind: 'left'; readonly stream: string; readonly why: string }

/** Acks what was completed together with the append of what it publishes; with that at most 500 entries a call. */
export async function settleAndPublish(
  client: Redis,
  member: Member,
  { source, done, resent }: { source: Source; done: readonly CompletedPublishing[]; resent: boolean },
): Promise<{ late: number; isWoken?: true; fates: PublishingFate[] }> {
  const streams: string[] = []
  const more: Argument[] = []
  const completed = done.map(({ publishing, ...one }, at): Completed => {
    const from = more.length
    for (const { stream, item } of publishing) {
      const known = streams.indexOf(stream)
      const number = known >= 0 ? known + 1 : streams.push(stream)
      more.push(number, item.due ?? '', item.fields.length, ...item.fields)
    }
    return { ...one, publishes: [from, publishing.length, at] }
  })
  const { keys, args } = completedArguments(member, { source, done: completed, resent })
  for (const stream of streams) keys.push(stream, scheduledKey(stream), scheduledJobsKey(stream), settingsKey(stream))
  // Not spread: what is published may be thousands of arguments.
  const begin = args.length + 1
  for (const one of more) args.push(one)
  args.push(begin, streams.length)
  const [late, , woken, answers] = asArray(await run(client, settlePublishing, keys, args))
  const fates = asArray(answers).map((answer) => fateOf(asText(answer), streams))
  return { late: asNumber(late), ...(asNumber(woken) === 1 && { isWoken: true as const }), fates }
}

function fateOf(answer: string, streams: readonly string[]): PublishingFate {
  if (answer === '') return { kind: 'late' }
  if (!answer.startsWith('!')) return { kind: 'settled', ids: answer.split(' ') }
  const [target = '', ...why] = answer.slice(1).split(' ')
  return { kind: 'left', stream: streams[Number(target) - 1] ?? '', why: why.join(' ') }
}
