import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Assault, assaults, classify } from "../testkit/assaults.ts";
import { percentile } from "../testkit/percentile.ts";
import { privateMemory } from "../testkit/processes.ts";
import { startServer } from "../testkit/server.ts";
import { generatePhotos } from "./decode.ts";

/**
 * What each hostile image, and each thing that clients do to the door, costs the others: a server of its own for each,
 * some clients that do it again and again, and beside them a photo every 100 ms. Then SIGTERM, in the midst of it.
 */
const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "8" },
    only: { type: "string", multiple: true, default: [""] },
    json: { type: "boolean", default: false },
  },
});

const PHOTO_EVERY_MS = 100;
/** What the table in SECURITY.md promises. */
const BAR = { failed: 0, slowestMs: 2_000, memoryMb: 600, endMs: 25_000 };

interface Outcome {
  readonly name: string;
  readonly bytes: number;
  readonly clients: number;
  /** What most of the attackers' requests were answered with. */
  readonly answer: string;
  readonly answers: number;
  readonly photos: number;
  readonly failed: number;
  readonly p50Ms: number;
  readonly slowestMs: number;
  readonly memoryMb: number;
  /** From SIGTERM to the end of the process. */
  readonly endMs: number;
}

async function attack(
  { name, bytes, clients, act }: Assault,
  photos: readonly Buffer[],
  seconds: number,
): Promise<Outcome> {
  const server = await startServer();
  try {
    const good = () =>
      classify(server.url, photos[Math.floor(Math.random() * photos.length)] ?? Buffer.alloc(0));
    for (let i = 0; i < 20; i += 1) await good();
    const memoryBefore = privateMemory(server.process.pid ?? 0);
    let memory = memoryBefore;
    const watch = setInterval(() => {
      memory = Math.max(memory, privateMemory(server.process.pid ?? 0));
    }, 50);

    let ending = false;
    const stop = new AbortController();
    const answers = new Map<string, number>();
    const attackers = Array.from({ length: clients }, async () => {
      while (!stop.signal.aborted) {
        const answer = await act(server.url).catch((error: Error) => error.message);
        if (!ending) answers.set(answer, (answers.get(answer) ?? 0) + 1);
      }
    });
    const times: number[] = [];
    let failed = 0;
    const requests: Promise<void>[] = [];
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      const began = performance.now();
      requests.push(
        good().then(
          (code) => {
            times.push(performance.now() - began);
            if (code !== "200") failed += 1;
          },
          () => {
            failed += 1;
          },
        ),
      );
      await delay(PHOTO_EVERY_MS);
    }
    await Promise.all(requests);
    clearInterval(watch);
    ending = true;
    const began = performance.now();
    const gone = once(server.process, "exit");
    server.process.kill("SIGTERM");
    await Promise.race([gone, delay(BAR.endMs + 15_000)]);
    const endMs = performance.now() - began;
    stop.abort();
    server.process.kill("SIGKILL");
    await Promise.all(attackers);
    const [most = "none"] = [...answers].sort((a, b) => b[1] - a[1])[0] ?? [];
    return {
      name,
      bytes,
      clients,
      answer: most,
      answers: [...answers.values()].reduce((sum, count) => sum + count, 0),
      photos: requests.length,
      failed,
      p50Ms: Math.round(percentile(times, 0.5)),
      slowestMs: Math.round(Math.max(...times)),
      memoryMb: Math.round((memory - memoryBefore) / 1e6),
      endMs: Math.round(endMs),
    };
  } finally {
    server.process.kill("SIGKILL");
  }
}

const photos = await generatePhotos(8);
const seconds = Number(values.seconds);
const outcomes: Outcome[] = [];
const calmPhoto = (await generatePhotos(1, 99))[0] ?? Buffer.alloc(0);
const calm: Assault = {
  name: "no attack: a small photo",
  bytes: calmPhoto.length,
  clients: 2,
  act: (url) => classify(url, calmPhoto),
};
console.log(
  `So many clients do it again and again, beside them a photo every ${PHOTO_EVERY_MS} ms, ${seconds} s\n` +
    "| What | Bytes | Clients | Answer | Photos failed | p50 ms | Slowest ms | Memory MB | SIGTERM to end, ms |\n" +
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
);
const wanted = (name: string) => values.only.some((part) => name.includes(part));
for (const assault of [calm, ...(await assaults(wanted))]) {
  const o = await attack(assault, photos, seconds);
  outcomes.push(o);
  console.log(
    `| ${o.name} | ${o.bytes} | ${o.clients} | ${o.answers} × ${o.answer} | ${o.failed} of ${o.photos} | ${o.p50Ms} | ${o.slowestMs} | +${o.memoryMb} | ${o.endMs} |`,
  );
}
if (values.json) console.log(JSON.stringify(outcomes));
const missed = outcomes.filter(
  ({ failed, slowestMs, memoryMb, endMs }) =>
    failed > BAR.failed || slowestMs > BAR.slowestMs || memoryMb > BAR.memoryMb || endMs > BAR.endMs,
);
console.log(
  `${outcomes.length - missed.length} within the bar, ${missed.length} not${missed.map(({ name }) => `\n  ${name}`).join("")}`,
);
process.exit(missed.length > 0 ? 1 : 0);
