import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import sharp from "sharp";
import { isAlive } from "../../testkit/engines.ts";
import { eventually } from "../../testkit/eventually.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

/** Child processes of the server that run this module, by their IDs. */
function childrenOf(server: TestServer, module: string): number[] {
  const parent = server.process.pid ?? 0;
  const threads = readdirSync(`/proc/${parent}/task`);
  return threads
    .flatMap((thread) => readFileSync(`/proc/${parent}/task/${thread}/children`, "utf8").trim().split(" "))
    .filter((pid) => pid !== "" && commandOf(pid).includes(module))
    .map(Number);
}

/** Empty for a process that has just gone. */
function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

const enginesOf = (server: TestServer) => childrenOf(server, "engines/child.ts");

/** A photo of its own colour, so that no answer comes from the cache. */
const photo = (n: number) =>
  sharp({
    create: { width: 160, height: 160, channels: 3, background: { r: n % 256, g: (n >> 8) % 256, b: 90 } },
  })
    .png()
    .toBuffer();

interface Answered {
  readonly results: Record<string, { readonly error?: { readonly code: string } }>;
  readonly error: { readonly code: string };
}

/** The HTTP status, and of each model whether it answered or its error's code. */
async function classify({ url }: TestServer, n: number): Promise<string> {
  const response = await fetch(`${url}/api/classify`, {
    method: "POST",
    headers: { "content-type": "image/png" },
    body: new Uint8Array(await photo(n)),
  });
  const { results, error } = (await response.json()) as Partial<Answered>;
  const codes = Object.values(results ?? { none: { error } }).map((each) => each.error?.code ?? "ok");
  return [response.status, ...codes].join(" ");
}

let server: TestServer;
let sent = 0;

beforeAll(async () => {
  server = await startServer();
}, 90_000);

afterAll(() => server?.stop());

const CLIENTS = 8;

/**
 * Asks with eight clients before, during and after `harm`; how often which outcome came.
 *
 * @param harm is given what waits until all that was under way has been answered, and more
 */
async function under(harm: (calm: () => Promise<void>) => Promise<void>): Promise<Record<string, number>> {
  const outcomes: Record<string, number> = {};
  let answered = 0;
  let over = false;
  const client = async () => {
    while (!over) {
      const outcome = await classify(server, sent++);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      answered++;
    }
  };
  const clients = Array.from({ length: CLIENTS }, client);
  const calm = async () => {
    const enough = answered + 4 * CLIENTS;
    await eventually(() => answered >= enough, 30_000);
  };
  await calm();
  await harm(calm);
  await calm();
  over = true;
  await Promise.all(clients);
  return outcomes;
}

describe("a server whose engines are harmed", () => {
  test("has as many as one network needs, though two services ask it", () => {
    expect(enginesOf(server)).toHaveLength(2);
  });

  test.each(["SIGKILL", "SIGSEGV", "SIGABRT"] as const)(
    "answers every request while each engine in turn gets %s",
    async (signal) => {
      const outcomes = await under(async (calm) => {
        for (const pid of enginesOf(server)) {
          process.kill(pid, signal);
          await eventually(() => enginesOf(server).length === 2 && !enginesOf(server).includes(pid));
          // Whom two engines die under looks guilty.
          await calm();
        }
      });
      expect(outcomes).toEqual({ "200 ok ok": expect.any(Number) });
    },
    60_000,
  );

  test("answers every request while an engine is stopped, and replaces it", async () => {
    const [pid = 0] = enginesOf(server);
    const outcomes = await under(async () => {
      process.kill(pid, "SIGSTOP");
      await eventually(() => !isAlive(pid), 30_000);
    });
    expect(outcomes).toEqual({ "200 ok ok": expect.any(Number) });
    await eventually(() => enginesOf(server).length === 2);
  }, 60_000);

  test("says in its log why they died, and in its metrics how often", async () => {
    expect(server.log()).toMatch(/Engine died .*SIGSEGV/);
    const text = await (await fetch(`${server.url}/metrics`)).text();
    const [, deaths] = /^engine_deaths_total\{.*\} (\d+)$/m.exec(text) ?? [];
    expect(Number(deaths)).toBeGreaterThanOrEqual(7);
  });

  test("is not ready while its engines die as they start, and ready again when that ends", async () => {
    const ready = async () => (await fetch(`${server.url}/health/ready`)).status;
    let killing = true;
    const killer = (async () => {
      while (killing) {
        for (const pid of enginesOf(server)) process.kill(pid, "SIGKILL");
        await delay(5);
      }
    })();
    await eventually(async () => (await ready()) === 503, 30_000);
    // At once, and not after the deadline.
    const began = performance.now();
    expect(await classify(server, sent++)).toMatch(/^503/);
    expect(performance.now() - began).toBeLessThan(5_000);
    expect((await fetch(`${server.url}/health/live`)).status).toBe(200);
    killing = false;
    await killer;
    await eventually(async () => (await ready()) === 200, 30_000);
    expect(await classify(server, sent++)).toBe("200 ok ok");
  }, 90_000);
});

describe("the engines of a server", () => {
  test("end with it at SIGTERM, and when it is killed", async () => {
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const own = await startServer();
      const pids = [...enginesOf(own), ...childrenOf(own, "image/decoder.ts")];
      expect(pids.length).toBeGreaterThan(2);
      const exited = once(own.process, "exit");
      own.process.kill(signal);
      expect(await exited).toEqual(signal === "SIGTERM" ? [0, null] : [null, "SIGKILL"]);
      await eventually(() => expect(pids.filter(isAlive)).toEqual([]));
    }
  }, 90_000);

  test("do not outlive its grace, even when one is stuck with a request", async () => {
    const own = await startServer({ DRAIN_GRACE_MS: "500" });
    const pids = enginesOf(own);
    for (const pid of pids) process.kill(pid, "SIGSTOP");
    const request = classify(own, 1).catch(() => "no answer");
    await eventually(async () => {
      const text = await (await fetch(`${own.url}/metrics`)).text();
      expect(text).toMatch(/^inference_running\{.*\} [1-9]/m);
    });
    const exited = once(own.process, "exit");
    own.process.kill("SIGTERM");
    expect(await exited).toEqual([null, "SIGKILL"]);
    expect(await request).toBe("no answer");
    await eventually(() => expect(pids.filter(isAlive)).toEqual([]));
  }, 60_000);
});
