import { Inspector, type InspectorOptions } from '../../src/index.ts'
import { onEnd } from './cleanup.ts'

/** An inspector that says nothing and is closed at the end of the test. */
export function newInspector(url: string, options: Omit<InspectorOptions, 'redis'> = {}): Inspector {
  const inspector = new Inspector({ redis: url, logger: false, ...options })
  onEnd(() => inspector.close())
  return inspector
}
