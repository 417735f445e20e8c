import type { AddressInfo } from "node:net";
import { Worker } from "node:worker_threads";
import { Listener } from "../../../../lib/http/listener.ts";

const CLIENTS = 20;

/** Opens connections, sends a request on each, and says when all is sent; at the end, how many were answered. */
const CLIENT = `
  const { connect } = require("node:net");
  const { parentPort, workerData } = require("node:worker_threads");
  const sent = new Int32Array(workerData.sent);
  let closed = 0, answered = 0;
  for (let i = 0; i < workerData.clients; i++) {
    let reply = "";
    const socket = connect(workerData.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.on("data", (data) => { reply += data; });
    socket.on("close", () => {
      if (reply.startsWith("HTTP/1.1 200")) answered++;
      if (++closed === workerData.clients) parentPort.postMessage(answered);
    });
    socket.write("GET / HTTP/1.1\\r\\nhost: localhost\\r\\n\\r\\n", () => {
      Atomics.add(sent, 0, 1);
      Atomics.notify(sent, 0);
    });
  }
`;

test("requests that were sent before the drain are answered, though the server had not yet accepted them", async () => {
  const listener = new Listener(
    {
      maxHeaderBytes: 16_384,
      bodyTimeoutMs: 10_000,
      keepAliveTimeoutMs: 65_000,
      maxConnections: 100,
      writeTimeoutMs: 10_000,
      trustedProxies: [],
    },
    (_, res) => res.end("yes"),
  );
  await new Promise<void>((resolve) => listener.server.listen(0, "127.0.0.1", resolve));
  const { port } = listener.server.address() as AddressInfo;
  const sent = new Int32Array(new SharedArrayBuffer(4));
  const client = new Worker(CLIENT, {
    eval: true,
    workerData: { port, clients: CLIENTS, sent: sent.buffer },
  });
  const answered = new Promise((resolve) => client.once("message", resolve));
  // The event loop stands still meanwhile, as it does on a busy server.
  for (let count = 0; count < CLIENTS; count = Atomics.load(sent, 0)) Atomics.wait(sent, 0, count);

  await listener.drain();
  expect(await answered).toBe(CLIENTS);
});
