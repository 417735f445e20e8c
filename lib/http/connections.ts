import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Tally } from "../request/tally.ts";
import { ADDRESS_SHARE } from "./share.ts";

/** A client's connection. */
export interface Connection {
  readonly socket: Socket;
  /** Whom it counts for; undefined: a proxy, that is no one in particular. */
  readonly client: string | undefined;
  /** The response last begun on it. */
  response?: ServerResponse;
  /** Whether `response` is still on its way. */
  busy: boolean;
  /** Requests that came before the one before them was answered. */
  readonly waiting: (readonly [IncomingMessage, ServerResponse])[];
  /** Bytes that the client has not taken yet, and since when it has taken none of them. */
  unread: { bytes: number; since: number };
}

/**
 * The open connections, no more than `most`. Where there is no room for one more, the connection that has been idle
 * for longest makes it: so idle ones, however many, keep nobody out. One client has at most its share.
 */
export class Connections {
  readonly #most: number;
  /** Those that were busy last are last. */
  readonly #all = new Map<Socket, Connection>();
  readonly #byClient = new Tally();

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#all.size;
  }

  [Symbol.iterator](): IterableIterator<Connection> {
    return this.#all.values();
  }

  of(socket: Socket): Connection | undefined {
    return this.#all.get(socket);
  }

  /** Takes a new connection in; false if there is no room and no idle one to make it. */
  add(socket: Socket, client: string | undefined): boolean {
    const share = Math.ceil(ADDRESS_SHARE * this.#most);
    if (client !== undefined && this.#byClient.count(client) >= share && !this.#evict(client)) return false;
    if (this.#all.size >= this.#most && !this.#evict()) return false;
    this.#all.set(socket, { socket, client, busy: false, waiting: [], unread: { bytes: 0, since: 0 } });
    if (client !== undefined) this.#byClient.add(client);
    return true;
  }

  remove(socket: Socket): void {
    const connection = this.#all.get(socket);
    if (!connection) return;
    this.#all.delete(socket);
    if (connection.client !== undefined) this.#byClient.remove(connection.client);
  }

  /** To be called when a response is out: the connection is now the one that was idle for the shortest time. */
  idle(connection: Connection): void {
    if (!this.#all.delete(connection.socket)) return;
    connection.busy = false;
    this.#all.set(connection.socket, connection);
  }

  /** Closes the longest idle connection of this client, or of the client with most. */
  #evict(client?: string): boolean {
    let found: Connection | undefined;
    let most = 0;
    for (const connection of this.#all.values()) {
      if (connection.busy || (client !== undefined && connection.client !== client)) continue;
      const held = connection.client === undefined ? 1 : this.#byClient.count(connection.client);
      if (held > most) [found, most] = [connection, held];
      if (client !== undefined) break;
    }
    if (!found) return false;
    this.remove(found.socket);
    found.socket.destroy();
    return true;
  }
}
