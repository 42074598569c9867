/**
 * Lets plain Node run this project's TypeScript: `node --import ./test/helpers/typescript.js file.ts`.
 *
 * The test runner translates what it imports itself, but the threads and processes that tests start are plain Node. Most of
 * them run from a bundle (bundle.ts), which costs a tenth.
 */
import { register } from 'node:module'
import process from 'node:process'

register('./typescript-hooks.js', import.meta.url)
// Traces then name the lines of the source.
process.setSourceMapsEnabled(true)
