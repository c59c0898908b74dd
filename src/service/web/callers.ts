/**
 * The connections of an HTTP listener. Anybody on this machine can open some: those that have not shown the
 * token are limited to a few, and make room for each other, the oldest first, so that they lock out nobody.
 * They take no room from those that have shown it.
 */
import type { Socket } from "node:net";

export const MOST_STRANGERS = 64;
export const MOST_KNOWN = 64;

export class Callers {
  // In the order in which they came.
  private readonly strangers = new Set<Socket>();
  private readonly known = new Set<Socket>();
  private readonly upgraded = new Set<Socket>();

  /** One that has just connected. */
  enter(socket: Socket): void {
    socket.on("close", () => this.leave(socket));
    admit(this.strangers, socket, MOST_STRANGERS);
  }

  /** It may do what it asked for. */
  know(socket: Socket): void {
    if (this.strangers.delete(socket)) admit(this.known, socket, MOST_KNOWN);
  }

  /** It is a WebSocket from now on, which its new owner counts. */
  upgrade(socket: Socket): void {
    this.strangers.delete(socket);
    this.known.delete(socket);
    this.upgraded.add(socket);
  }

  cutOff(): void {
    for (const sockets of [this.strangers, this.known, this.upgraded])
      for (const socket of sockets) socket.destroy();
  }

  private leave(socket: Socket): void {
    for (const sockets of [this.strangers, this.known, this.upgraded]) sockets.delete(socket);
  }
}

function admit(sockets: Set<Socket>, socket: Socket, most: number): void {
  sockets.add(socket);
  const [oldest] = sockets;
  if (sockets.size > most && oldest !== undefined) {
    sockets.delete(oldest);
    oldest.destroy();
  }
}
