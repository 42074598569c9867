import { writeFile } from 'node:fs/promises'
import { pages } from './pages.ts'

/** `npm run docs`: writes the pages of docs/ that are made from code. A test fails while they are not what it would write. */
for (const { path, text } of await pages()) await writeFile(path, text)
