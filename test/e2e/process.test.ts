import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import sharp from "sharp";
import { eventually } from "../../testkit/eventually.ts";
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

describe("a server process", () => {
  test("refuses a wrong environment with all mistakes and no stack", () => {
    const { status, stderr } = startAndFail({ PORT: "http", MAX_IMAGES: "many" });
    expect(status).toBe(1);
    expect(stderr).toContain("PORT");
    expect(stderr).toContain("MAX_IMAGES");
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  test("refuses a service that there is not, and names those there are", () => {
    const { status, stderr } = startAndFail({ SERVICES: "resnet-fish" });
    expect(status).toBe(1);
    expect(stderr).toContain("resnet-fish");
    expect(stderr).toContain("resnet-cat");
  });

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
