import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'

/** A command that Redis executes, as MONITOR tells it. */
export interface MonitoredCommand {
  /** In lower case. */
  readonly name: string
  /** Whether a script called it. */
  readonly isOfScript: boolean
  /** The name and what follows it; bytes that cannot be printed are escaped as Redis does. */
  readonly words: readonly string[]
}

export interface Monitor {
  close(): void
}

const LINE = /^\+\d+\.\d+ \[\d+ ([^\]]+)\] (.*)$/

/**
 * Tells every command that Redis executes from now on. On a socket of its own: `monitor()` of ioredis fails with "Command
 * queue state error" where the first command comes in one packet with the answer to MONITOR.
 */
export async function openMonitor(url: string, told: (command: MonitoredCommand) => void): Promise<Monitor> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  const lines = createInterface({ input: socket })
  const answered = new Promise<void>((resolve, reject) => {
    socket.once('error', reject).once('close', () => reject(new Error('Redis closed the connection of MONITOR')))
    lines.on('line', (line) => {
      const [, source, text = ''] = LINE.exec(line) ?? []
      if (source !== undefined) {
        const words = [...text.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word = '']) => word)
        told({ name: (words[0] ?? '').toLowerCase(), isOfScript: source === 'lua', words })
      } else if (line === '+OK') resolve()
      else reject(new Error(`expected Redis to take MONITOR, got ${line}`))
    })
  })
  socket.write('MONITOR\r\n')
  await answered
  return { close: () => void socket.destroy() }
}
