import { usageError } from './exit.ts'

/** Where Redis is when nobody says. */
export const DEFAULT_REDIS_URL = 'redis://127.0.0.1:6379'

/**
 * The URL as it is, if it can be one. Its text is never shown: it may hold a password.
 * @param origin where it comes from: `--redis` or the name of an environment variable.
 */
export function checkRedisUrl(url: string, origin: string): string {
  if (url.startsWith('/') || url.startsWith('unix://')) return url
  const wanted = `expected \`${origin}\` to be a URL such as redis://host:6379/0`
  if (!/^rediss?:\/\//.test(url)) throw usageError(`${wanted}, got one that does not begin with redis:// or rediss://`)
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined) {
    throw usageError(`${wanted}, got one that cannot be read; in a password write / @ : # ? as %2F %40 %3A %23 %3F`)
  }
  if (!/^\/?\d{0,5}$/.test(parsed.pathname)) throw usageError(`${wanted}, got one whose database is not a number`)
  return url
}

/** A text without the secrets of this URL, and without those of any other. */
export function redact(text: string, url: string): string {
  let told = text.replace(/\/\/[^@/\s]*@/g, '//***@').replace(/([?&]password=)[^&\s]*/g, '$1***')
  for (const secret of passwordsOf(url)) told = told.replaceAll(secret, '***')
  return told
}

/** The password as it is written and as it is meant. Very short ones would take ordinary words out of the text. */
function passwordsOf(url: string): string[] {
  const written = /^[a-z]+:\/\/[^/?#]*?:([^/?#]*)@/i.exec(url)?.[1] ?? ''
  let meant = written
  try {
    meant = decodeURIComponent(written)
  } catch {
    // not percent-encoded: it is meant as written
  }
  return [...new Set([written, meant])].filter((secret) => secret.length >= 4)
}
