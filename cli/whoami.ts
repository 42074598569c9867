import { hostname, userInfo } from 'node:os'

/** Who asks, as far as this machine knows. */
export function whoami(): string {
  let user: string
  try {
    user = userInfo().username
  } catch {
    user = 'unknown' // a user id without an account, as containers have them
  }
  return `${user}@${hostname()}`.slice(0, 100)
}
