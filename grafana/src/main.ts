import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { dashboards } from './dashboards.ts'

/** `npm run dashboards`: writes grafana/dashboards/. A test fails while they are not what it would write. */
for (const { path, text } of await dashboards()) {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
}
