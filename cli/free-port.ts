import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'

/**
 * A port nobody listens on, below the range from which the system takes the ports of outgoing connections: there, a
 * client that keeps reconnecting to a stopped server could take the server's port, or even connect to itself.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 50; tries++) {
    const port = await listenOnce(randomInt(20_000, 32_000))
    if (port !== undefined) return port
  }
  return (await listenOnce(0)) ?? 0
}

async function listenOnce(port: number): Promise<number | undefined> {
  const server = createServer()
  try {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  } catch {
    return undefined
  } finally {
    await new Promise((resolve) => server.close(resolve))
  }
}
