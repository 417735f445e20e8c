import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import sharp from "sharp";
import { eventually } from "../../testkit/eventually.ts";
import { freePort } from "../../testkit/port.ts";
import { startServer } from "../../testkit/server.ts";

const ROOT = resolve(import.meta.dirname, "../..");

function startAndFail(env: Record<string, string>) {
  return spawnSync(process.execPath, ["bin/start.ts"], {
    cwd: ROOT,
    env: { PATH: process.env["PATH"], ...env },
    encoding: "utf8",
    timeout: 30_000,
  });
}

describe("the REPL", () => {
  test("lists models and asks them about a file", async () => {
    const folder = mkdtempSync(join(tmpdir(), "repl-"));
    const photo = join(folder, "photo.png");
    await sharp({ create: { width: 90, height: 60, channels: 3, background: "plum" } })
      .png()
      .toFile(photo);
    const repl = spawn(process.execPath, ["bin/repl.ts"], {
      cwd: ROOT,
      env: { PATH: process.env["PATH"], HOME: folder, PORT: "0", HOST: "127.0.0.1", NO_COLOR: "1" },
    });
    let text = "";
    repl.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    const says = (expected: RegExp) => eventually(() => expected.test(text), 30_000);
    try {
      await says(/dl-lambda \$/);
      repl.stdin.write("models\n");
      await says(/'Is it a dog\?'.*'pets-resnet@1'.*'ready'/);
      repl.stdin.write(`classify ${photo} resnet-cat\n`);
      await says(/'resnet-cat'\s*│ '(yes|no)'/);
      repl.stdin.write("dead-letters\n");
      repl.stderr.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      await says(/not connected to RabbitMQ/);
    } finally {
      repl.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    }
  }, 120_000);
});

/** A command as users type it. */
function npmRun(script: string, env: Record<string, string>): { child: ChildProcess; text: () => string } {
  const child = spawn("npm", ["run", script], {
    cwd: ROOT,
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], ...env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
  }
  return { child, text: () => text };
}

/** Whether something answers at this address. */
const answers = (url: string) =>
  fetch(url, { headers: { connection: "close" } }).then(
    () => true,
    () => false,
  );

describe("commands", () => {
  test("warn of nothing", async () => {
    const { stderr } = spawnSync("npm", ["run", "docs:check"], { cwd: ROOT, encoding: "utf8" });
    expect(stderr).toBe("");
  });

  test("say nothing that only a shell of Unix knows", () => {
    const { scripts } = JSON.parse(readFileSync(resolve(ROOT, "package.json"), "utf8")) as {
      scripts: Record<string, string>;
    };
    for (const script of Object.values(scripts)) {
      // What is a script of bash says so; biome and tsc are commands of their packages everywhere.
      for (const command of script.split(" && ")) {
        expect(command).toMatch(/^(node|biome|tsc|bash)\b[^;|$`]*$/);
      }
    }
  });

  test("that are told to stop take their server along", async () => {
    const { child, text } = npmRun("start", { PORT: "0", HOST: "127.0.0.1" });
    try {
      await eventually(() => /Serving on/.test(text()), 60_000);
      const [, url = ""] = /Serving on (http:\S+)/.exec(text()) ?? [];
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      await exited;
      await eventually(async () => !(await answers(`${url}/health/live`)), 30_000);
      await eventually(() => /Good bye/.test(text()), 30_000);
    } finally {
      killGroup(child);
    }
  }, 120_000);

  test("answer for a model that is still loading: it is unavailable, not unknown", async () => {
    const folder = mkdtempSync(join(tmpdir(), "slow-"));
    const url = (path: string) => JSON.stringify(pathToFileURL(resolve(ROOT, path)).href);
    const loaded = join(folder, "loaded");
    writeFileSync(
      join(folder, "slow.service.ts"),
      `import { existsSync } from "node:fs";
       import { setTimeout } from "node:timers/promises";
       import { defineService } from ${url("lib/define.ts")};
       import { ImageClassifier } from ${url("mixins/image-classifier.mixin.ts")};
       export default defineService()({
         name: "slow",
         mixins: [ImageClassifier],
         settings: { model: "pets-resnet", group: "cat", question: "Is it a cat, at last?" },
         async started() {
           while (!existsSync(${JSON.stringify(loaded)})) await setTimeout(20);
         },
       });`,
    );
    const body = new Uint8Array(
      await sharp({ create: { width: 90, height: 60, channels: 3, background: "plum" } })
        .png()
        .toBuffer(),
    );
    const port = String(await freePort());
    const { child, text } = npmRun("start", {
      PORT: port,
      HOST: "127.0.0.1",
      SERVICES_DIRS: `services,${folder}`,
    });
    const ask = async (name: string) => {
      const response = await fetch(`http://127.0.0.1:${port}/api/models/${name}/classify`, {
        method: "POST",
        headers: { "content-type": "image/png", connection: "close" },
        body,
      });
      const { error } = (await response.json()) as { error?: { code: string; retryable: boolean } };
      return { status: response.status, ...(error ? { code: error.code, retryable: error.retryable } : {}) };
    };
    try {
      const away = { status: 503, code: "MODEL_UNAVAILABLE", retryable: true };
      const said: unknown[] = [];
      await eventually(async () => {
        // From the first answer on; before it nobody listens.
        said.push(await ask("slow"));
        return (await ask("resnet-cat")).status === 200;
      }, 60_000);
      expect(said).toEqual(said.map(() => away));
      expect(await ask("no-such")).toMatchObject({ status: 404, code: "MODEL_NOT_FOUND" });
      writeFileSync(loaded, "");
      await eventually(async () => (await ask("slow")).status === 200, 60_000);
      await eventually(() => /Serving on/.test(text()), 60_000);
    } finally {
      killGroup(child);
      rmSync(folder, { recursive: true, force: true });
    }
  }, 150_000);

  test("that a terminal interrupts, once, let the server end in order", async () => {
    const { child, text } = npmRun("start", { PORT: "0", HOST: "127.0.0.1" });
    try {
      await eventually(() => /Serving on/.test(text()), 60_000);
      const exited = once(child, "exit");
      // As Ctrl-C does: npm gets it and its script too, and npm passes it on.
      process.kill(-(child.pid ?? 0), "SIGINT");
      await exited;
      await eventually(() => /Good bye/.test(text()), 30_000);
    } finally {
      killGroup(child);
    }
  }, 120_000);

  const USAGES = ["bench", "bench:balance", "chaos", "cluster", "train"];
  test.each(USAGES)("%s tells its options, and in one line those that it has not", (script) => {
    const run = (...args: string[]) =>
      spawnSync("npm", ["run", "--silent", script, "--", ...args], { cwd: ROOT, encoding: "utf8" });
    const help = run("--help");
    expect([help.status, help.stderr]).toEqual([0, ""]);
    expect(help.stdout).toMatch(/--\w+/);
    const unknown = run("--nonsense");
    expect([unknown.status, unknown.stdout]).toEqual([2, ""]);
    expect(unknown.stderr).toMatch(/^Unknown option .*--nonsense.*\n$/);
  });

  test("on a Node that is too old say what to do, in one line", () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      ["--no-experimental-strip-types", "bin/launch.js", "bin/start.ts"],
      { cwd: ROOT, encoding: "utf8" },
    );
    expect(status).toBe(1);
    expect(stderr).toMatch(/^DL-Lambda needs Node 22\.18 or newer and this is v\S+: run `npm ci`.*\n$/);
  });

  const old = ["/usr/bin/node", "/usr/local/bin/node"].find((node) => {
    const { stdout } = spawnSync(node, ["--version"], { encoding: "utf8" });
    return /^v(1\d|20|21)\./.test(stdout ?? "");
  });
  (old ? test : test.skip)("on this machine's old Node they do", () => {
    const { status, stderr } = spawnSync(old ?? "", ["bin/launch.js", "bin/start.ts"], {
      cwd: ROOT,
      encoding: "utf8",
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(/^DL-Lambda needs Node 22\.18 .*\n$/);
  });
});

/** Ends what is left of a command and all it has started. */
function killGroup(child: ChildProcess): void {
  try {
    process.kill(-(child.pid ?? 0), "SIGKILL");
  } catch {
    // Nothing is left, as it should be.
  }
}

describe("a server process", () => {
  test("refuses a wrong environment with all mistakes and no stack", () => {
    const { status, stderr } = startAndFail({ PORT: "http", MAX_IMAGES: "many" });
    expect(status).toBe(1);
    expect(stderr).toContain("PORT");
    expect(stderr).toContain("MAX_IMAGES");
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  test("refuses a service that there is not, and names those there are, in one line", () => {
    const { status, stdout, stderr } = startAndFail({ SERVICES: "whales" });
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^Expected SERVICES to be among .*resnet-cat.* but received whales\n$/);
    expect(startAndFail({ SERVICES: "gateway,dispacher" }).stderr).toMatch(
      /but received dispacher \(did you mean "dispatcher"\?\)\n$/,
    );
  });

  test("refuses a folder of services that there is not, in one line", () => {
    const { status, stdout, stderr } = startAndFail({ SERVICES_DIRS: "services,nowhere" });
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^Expected SERVICES_DIRS .*nowhere\n$/);
  });

  test.each([
    [
      { HOST: "192.0.2.1" },
      /^Cannot listen on 192\.0\.2\.1:0: this machine has no such address \(EADDRNOTAVAIL\)$/m,
    ],
    [
      { HOST: "no-such-host.invalid" },
      /^Cannot listen on no-such-host\.invalid:0: this name has no address \(E\w+\)$/m,
    ],
  ])("ends with a line that says why it cannot listen at %p", (env, line) => {
    const { status, stdout, stderr } = startAndFail({ PORT: "0", SERVICES: "gateway", ...env });
    expect(status).toBe(1);
    expect(stderr).toMatch(line);
    expect(stdout + stderr).not.toMatch(/\n\s+at /);
  });

  test("ends with a line when a port is another's, its own or the admin server's", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const port = String((taken.address() as AddressInfo).port);
    const base = { HOST: "127.0.0.1", SERVICES: "gateway" };
    for (const env of [{ PORT: port }, { PORT: "0", ADMIN_PORT: port }]) {
      const { status, stdout, stderr } = startAndFail({ ...base, ...env });
      expect(status).toBe(1);
      expect(stderr).toMatch(/^Cannot listen on \S+: another process has this port \(EADDRINUSE\)$/m);
      expect(stdout + stderr).not.toMatch(/\n\s+at /);
    }
    taken.close();
  }, 60_000);

  test("ends with an error when a model cannot be loaded", () => {
    const { status, stdout, stderr } = startAndFail({ PORT: "0", MODELS_DIR: "test/fixtures" });
    expect(status).toBe(1);
    expect(stdout + stderr).toContain("pets-resnet");
  });

  test("is ready when it says so, and answers what is in flight before it ends at SIGTERM", async () => {
    const server = await startServer();
    expect((await fetch(`${server.url}/health/ready`)).status).toBe(200);
    const image = await sharp({ create: { width: 2000, height: 2000, channels: 3, background: "navy" } })
      .png()
      .toBuffer();
    const inFlight = Array.from({ length: 6 }, () =>
      fetch(`${server.url}/api/classify`, {
        method: "POST",
        headers: { "content-type": "image/png" },
        body: new Uint8Array(image),
      }),
    );
    // The first answer says that the requests have reached the server.
    await Promise.race(inFlight);
    const exited = once(server.process, "exit");
    server.process.kill("SIGTERM");
    const statuses = (await Promise.all(inFlight)).map(({ status }) => status);
    expect(statuses).toEqual(Array(6).fill(200));
    expect(await exited).toEqual([0, null]);
    await expect(fetch(server.url)).rejects.toThrow();
  }, 90_000);
});
