import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { Connections } from "../../../../lib/http/connections.ts";

class FakeSocket extends EventEmitter {
  destroyed = false;
  destroy() {
    this.destroyed = true;
    return this;
  }
}

const socket = () => new FakeSocket() as unknown as Socket;

/** Adds connections of one client and gives their sockets. */
function open(connections: Connections, count: number, client: string | undefined, busy = false) {
  return Array.from({ length: count }, () => {
    const each = socket();
    expect(connections.add(each, client)).toBe(true);
    const connection = connections.of(each);
    if (connection) connection.busy = busy;
    return each;
  });
}

const destroyed = (sockets: readonly Socket[]) => sockets.map((each) => each.destroyed);

test("one more than there may be takes the place of the one that has been idle for longest", () => {
  const connections = new Connections(3);
  const [first, second, third] = open(connections, 3, undefined) as [Socket, Socket, Socket];
  const used = connections.of(first);
  if (used) connections.idle(used);
  open(connections, 1, undefined);
  expect(destroyed([first, second, third])).toEqual([false, true, false]);
  expect(connections.size).toBe(3);
});

test("of idle connections, those of the client with most go first", () => {
  const connections = new Connections(8);
  const few = open(connections, 2, "few");
  const many = open(connections, 6, "many");
  const late = open(connections, 3, "late");
  expect(destroyed(few)).toEqual([false, false]);
  expect(destroyed(many)).toEqual([true, true, true, false, false, false]);
  expect(destroyed(late)).toEqual([false, false, false]);
});

test("one client has three quarters at most, and one more of its own closes its own", () => {
  const connections = new Connections(8);
  const many = open(connections, 7, "many");
  expect(destroyed(many)).toEqual([true, false, false, false, false, false, false]);
  expect(connections.size).toBe(6);
});

test("nobody who is being answered is closed; then there is no room", () => {
  const connections = new Connections(4);
  const busy = open(connections, 3, "many", true);
  expect(connections.add(socket(), "many")).toBe(false);
  open(connections, 1, "other", true);
  expect(connections.add(socket(), "third")).toBe(false);
  expect(destroyed(busy)).toEqual([false, false, false]);
  connections.remove(busy[0] as Socket);
  expect(connections.add(socket(), "many")).toBe(true);
});

test("a connection that is gone counts no more, however often that is told", () => {
  const connections = new Connections(4);
  const [one] = open(connections, 3, "many", true) as [Socket];
  connections.remove(one);
  connections.remove(one);
  expect(connections.size).toBe(2);
  open(connections, 1, "many");
});
