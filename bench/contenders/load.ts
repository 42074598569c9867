import type { Contender, ContenderName } from './contender.ts'
import type { Control } from './control.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { Timed } from './timed.ts'

/** Loads one contender and nothing of the others: a process measures one, and its heap is to hold that one. */
export async function openContender(name: ContenderName, url: string): Promise<Contender> {
  switch (name) {
    case 'millrace':
      return (await import('./millrace.ts')).openMillrace(url)
    case 'raw':
      return (await import('./raw.ts')).openRaw(url)
    case 'bullmq':
      return (await import('./bullmq.ts')).openBullMq(url)
    case 'bee-queue':
      return (await import('./bee-queue.ts')).openBeeQueue(url)
  }
}

/** The same for those that have what is measured of jobs that fail or wait. */
export async function openLifecycle(name: ContenderName, url: string): Promise<Lifecycle> {
  switch (name) {
    case 'millrace':
      return (await import('./millrace-lifecycle.ts')).openMillraceLifecycle(url)
    case 'bullmq':
      return (await import('./bullmq-lifecycle.ts')).openBullMqLifecycle(url)
    case 'raw':
    case 'bee-queue':
      throw new Error(`${name} is not measured with jobs that fail or wait`)
  }
}

/** The same for those that have unique keys and limits. */
export async function openControl(name: ContenderName, url: string): Promise<Control> {
  switch (name) {
    case 'millrace':
      return (await import('./millrace-control.ts')).openMillraceControl(url)
    case 'bullmq':
      return (await import('./bullmq-control.ts')).openBullMqControl(url)
    case 'raw':
    case 'bee-queue':
      throw new Error(`${name} has no unique keys and no limits`)
  }
}

/** The same for those that have recurring schedules. */
export async function openTimed(name: ContenderName, url: string): Promise<Timed> {
  switch (name) {
    case 'millrace':
      return (await import('./millrace-timed.ts')).openMillraceTimed(url)
    case 'bullmq':
      return (await import('./bullmq-timed.ts')).openBullMqTimed(url)
    case 'raw':
    case 'bee-queue':
      throw new Error(`${name} has no recurring schedules`)
  }
}
