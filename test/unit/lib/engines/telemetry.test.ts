import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { installed } from "../../../../testkit/debian.ts";

const ROOT = resolve(import.meta.dirname, "../../../..");

let strace: string;
let home: string;
beforeAll(async () => {
  const path = await installed(["/usr/bin/strace", "/usr/local/bin/strace"], "strace");
  if (!path) throw new Error("strace is missing: install it with your package manager");
  strace = path;
}, 120_000);
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "home-"));
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

/** Runs a program under strace in an empty home; the system calls that write files or speak to the network. */
function trace(program: string): string {
  const log = join(home, "trace");
  execFileSync(
    strace,
    [
      "-f",
      "-qq",
      `-o${log}`,
      "-etrace=openat,open,creat,mkdir,mkdirat,socket,connect,sendto",
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      "--input-type=module-typescript",
      "-e",
      program,
    ],
    {
      cwd: ROOT,
      stdio: ["ignore", "ignore", "inherit"],
      env: { PATH: process.env["PATH"], HOME: home, XDG_CACHE_HOME: "" },
    },
  );
  const calls = readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => /AF_INET|resolv\.conf|O_CREAT|mkdir|creat\(/.test(line) && !line.includes('"/proc/'));
  rmSync(log);
  return calls.join("\n");
}

/** Loads the shipped model and computes with it. */
const USE = (load: string) => `
  const spec = {
    runtime: "onnx", dir: ${JSON.stringify(join(ROOT, "models/pets-resnet/1"))}, files: ["model.onnx"], threads: 1,
    inputs: [], outputs: [{ name: "logits", dtype: "float32", shape: [3] }], maxBatch: 1,
  };
  ${load}
  const pixels = { dtype: "uint8", shape: [1, 144, 144, 3], data: new Uint8Array(144 * 144 * 3) };
  await engine.run({ pixels }, 1, { deadline: Infinity });
  await engine.close();`;

const module = (path: string) => JSON.stringify(join(ROOT, path));

test("the runtime by itself keeps a file about its use: this test would see it", () => {
  const calls = trace(`
    const { InferenceSession } = await import("onnxruntime-node");
    await InferenceSession.create(${module("models/pets-resnet/1/model.onnx")});`);
  expect(calls).toMatch(/onnxruntime/);
  expect(readdirSync(home)).not.toEqual([]);
});

test.each([
  [
    "an engine's process",
    `const { EngineProcess } = await import(${module("lib/engines/process.ts")});
     const engine = new EngineProcess("file://" + ${module("lib/engines/onnx.ts")}, spec, { name: "m" });
     await engine.load(AbortSignal.timeout(60_000));`,
  ],
  [
    "a program that loads the runtime itself, as training does",
    `const { default: load } = await import(${module("lib/engines/onnx.ts")});
     const engine = await load(spec);`,
  ],
])("%s writes no file and speaks to nobody", (_, load) => {
  expect(trace(USE(load))).toBe("");
  expect(readdirSync(home)).toEqual([]);
});

test("whatever loads the runtime switches that off before", () => {
  const files = execFileSync("git", ["ls-files", "*.ts"], { cwd: ROOT, encoding: "utf8" }).trim().split("\n");
  const sources = files
    .filter((file) => !file.startsWith("test/"))
    .map((file) => ({ file, text: readFileSync(join(ROOT, file), "utf8") }))
    .filter(({ text }) => /(from|import\(|require\() ?"onnxruntime-node"/.test(text));
  expect(sources.map(({ file }) => file)).toContain("lib/engines/onnx.ts");
  for (const { text } of sources) {
    const [first] = text.match(/^import .*$/m) ?? [];
    expect(first).toMatch(/no-telemetry\.ts";$/);
  }
});
