import { expect, test } from 'vitest'
import { faultOf } from '../src/redis/faults.ts'

/** What Redis's words mean, in the wrappings that its versions put around them. */

function replyError(message: string): Error {
  const error = new Error(message)
  error.name = 'ReplyError'
  return error
}

test.each([
  ["OOM command not allowed when used memory > 'maxmemory'.", 'refused', 'OOM'],
  ["-OOM command not allowed when used memory > 'maxmemory'.", 'refused', 'OOM'],
  ["@user_script: 17: -OOM command not allowed when used memory > 'maxmemory'.", 'refused', 'OOM'],
  ["@user_script: 17: -READONLY You can't write against a read only replica.", 'refused', 'READONLY'],
  ['@user_script:17: WRONGTYPE Operation against a key holding the wrong kind of value', 'fatal', 'WRONGTYPE'],
  [
    'ERR Error running script (call to f_0a): @user_script:12: @user_script: 12: -OOM command not allowed',
    'refused',
    'OOM',
  ],
  ["NOGROUP No such key 'orders' or consumer group 'main'", 'lost-group', 'NOGROUP'],
  ['UNBLOCKED the stream key no longer exists', 'lost-group', 'UNBLOCKED'],
  ['NOPERM this user has no permissions', 'fatal', 'NOPERM'],
  ['ERR max number of clients reached', 'refused', 'ERR'],
])('%s', (message, kind, word) => {
  expect(faultOf(replyError(message))).toEqual({ kind, word })
})
