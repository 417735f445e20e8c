import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { type Allowance, Decoders } from "../../../../../lib/kinds/image/decoders.ts";
import type { Job } from "../../../../../lib/kinds/image/decoding.ts";
import { usageOf } from "../../../../../lib/process/child.ts";
import { eventually } from "../../../../../testkit/eventually.ts";
import { photo, plain } from "./samples.ts";

const ample: Allowance = { memoryBytes: 2 ** 30, cpuMs: 30_000, wallMs: 30_000 };
const frame = { width: 8, height: 8 };
const job = (data: Uint8Array, format: Job["format"] = "png"): Job => ({
  parts: [data],
  format,
  box: frame,
  frame,
  maxPixels: 40e6,
});

/** Some 0.3 s of work and 130 MB on a quick machine. */
const large = await plain(4000, 4000).webp({ lossless: true, effort: 0 }).toBuffer();
const small = await photo(60, 40).png().toBuffer();

const open: Decoders[] = [];
function started(count: number): Promise<Decoders> {
  const decoders = new Decoders(count);
  open.push(decoders);
  return decoders.start().then(() => decoders);
}
afterEach(() => {
  for (const decoders of open.splice(0)) decoders.close();
});

const pidOf = (decoders: Decoders): number => decoders.pids[0] ?? Number.NaN;

test("decodes, and refuses what is damaged or too large", async () => {
  const decoders = await started(1);
  const decoded = await decoders.decode(job(small), ample);
  expect(decoded.ok && decoded.pixels.byteLength).toBe(8 * 8 * 3);
  await expect(decoders.decode(job(small.subarray(0, 200)), ample)).resolves.toMatchObject({
    reason: "damaged",
  });
  await expect(decoders.decode({ ...job(small), maxPixels: 100 }, ample)).resolves.toMatchObject({
    reason: "pixels",
  });
});

test("reaches no loader but those of the six formats", async () => {
  const svg =
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
  const decoders = await started(1);
  await expect(decoders.decode(job(Buffer.from(svg)), ample)).resolves.toMatchObject({ ok: false });
});

describe("a decoder that takes more than its image may", () => {
  test.each<[string, Partial<Allowance>, string]>([
    ["memory", { memoryBytes: 20 * 2 ** 20 }, "memory"],
    ["CPU time", { cpuMs: 30 }, "time"],
    ["time", { wallMs: 60 }, "time"],
  ])("is ended: %s", async (_, limit, verdict) => {
    const decoders = await started(1);
    const pid = pidOf(decoders);
    await expect(decoders.decode(job(large, "webp"), { ...ample, ...limit })).rejects.toMatchObject({
      verdict,
    });
    await expect(decoders.decode(job(small), ample)).resolves.toMatchObject({ ok: true });
    expect(pidOf(decoders)).not.toBe(pid);
    await eventually(() => usageOf(pid) === undefined);
  });

  test("is ended also when it does nothing at all", async () => {
    const decoders = await started(1);
    process.kill(pidOf(decoders), "SIGSTOP");
    const stopped = decoders.decode(job(small), { ...ample, wallMs: 200 });
    await expect(stopped).rejects.toMatchObject({ verdict: "time" });
    await expect(decoders.decode(job(small), ample)).resolves.toMatchObject({ ok: true });
  });
});

test("an image whose decoder is killed by somebody else is decoded by the next", async () => {
  const decoders = await started(1);
  const pid = pidOf(decoders);
  process.kill(pid, "SIGSTOP");
  const decoded = decoders.decode(job(small), ample);
  process.kill(pid, "SIGKILL");
  await expect(decoded).resolves.toMatchObject({ ok: true });
  expect(pidOf(decoders)).not.toBe(pid);
});

test("an image that kills two decoders is not given to a third", async () => {
  const decoders = await started(1);
  const first = pidOf(decoders);
  const decoded = decoders.decode(job(large, "webp"), ample);
  decoded.catch(() => {});
  process.kill(first, "SIGKILL");
  await eventually(() => decoders.pids.length > 0 && pidOf(decoders) !== first);
  process.kill(pidOf(decoders), "SIGKILL");
  await expect(decoded).rejects.toMatchObject({ verdict: "crash" });
});

test("an idle decoder that was killed is replaced ahead of the next image", async () => {
  const decoders = await started(1);
  const pid = pidOf(decoders);
  process.kill(pid, "SIGKILL");
  await eventually(() => decoders.pids.length > 0 && pidOf(decoders) !== pid);
  expect(decoders.ready).toBe(true);
  await expect(decoders.decode(job(small), ample)).resolves.toMatchObject({ ok: true });
});

test("where no decoder can be started, the image is told so", async () => {
  const decoders = new Decoders(1, {
    module: new URL("../../../../fixtures/decoders/stillborn.ts", import.meta.url),
  });
  await expect(decoders.decode(job(small), ample)).rejects.toMatchObject({ type: "INTERNAL" });
  await expect(decoders.start()).rejects.toThrow();
  expect(decoders.ready).toBe(false);
});

test("a decoder gets nothing of what the server is told, and leaves its end to it", async () => {
  process.env["TRANSPORTER"] = "amqp://user:secret@host";
  const decoders = await started(1).finally(() => {
    delete process.env["TRANSPORTER"];
  });
  const pid = pidOf(decoders);
  expect(readFileSync(`/proc/${pid}/environ`, "latin1")).not.toContain("secret");
  process.kill(pid, "SIGTERM");
  process.kill(pid, "SIGINT");
  await expect(decoders.decode(job(small), ample)).resolves.toMatchObject({ ok: true });
  expect(pidOf(decoders)).toBe(pid);
});

test("decoders end with their process, however that ends", async () => {
  const parent = spawn(process.execPath, [resolve("test/fixtures/decoders/parent.ts")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = (await once(parent.stdout, "data")) as [Buffer];
  const pids = line.toString().trim().split(" ").map(Number);
  expect(pids).toHaveLength(2);
  expect(pids.every((pid) => usageOf(pid) !== undefined)).toBe(true);
  parent.kill("SIGKILL");
  await eventually(() => pids.every((pid) => usageOf(pid) === undefined));
});
