import { ROLES, type Role } from '../redis/permissions.ts'
import type { Facts } from './facts.ts'
import { fine, problem, type DoctorFinding } from './finding.ts'

/** What the user of this connection may be. Pure. */

export function permissionFindings({ permissions }: Pick<Facts, 'permissions'>): DoctorFinding[] {
  if (permissions === undefined) {
    return [
      problem(['permissions', 'unknown'], {
        found: 'this user may not ask what it may do, or the server is older than 7.0',
        why: 'A command that is forbidden shows only when it is needed.',
        fix: 'run it as a user with +acl|whoami +acl|dryrun',
      }),
    ]
  }
  const { user, lacks } = permissions
  const may = ROLES.filter((role) => lacks[role].length === 0)
  if (may.length > 0) return [fine('permissions', `user ${user} may be ${list(may)}`)]
  const nearest = [...ROLES].sort((a, b) => lacks[a].length - lacks[b].length)[0] ?? 'producer'
  return [
    problem(['permissions', 'warn'], {
      found: `user ${user} can be no part of millrace: for ${article(nearest)} it lacks ${lacks[nearest].join(', ')}`,
      why: 'What it lacks is refused with NOPERM in the middle of the work.',
      fix: `ACL SETUSER ${user} ${lacks[nearest].map((name) => `+${name.toLowerCase()}`).join(' ')}, and the keys of the streams`,
    }),
  ]
}

function list(roles: readonly Role[]): string {
  return roles.map(article).join(', ')
}

function article(role: Role): string {
  return /^[aeiou]/.test(role) ? `an ${role}` : `a ${role}`
}
