import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jest } from "@jest/globals";
import sharp from "sharp";
import type { Container } from "../../lib/kinds/video/container.ts";
import { type FramesOptions, framesOf } from "../../lib/kinds/video/frames.ts";
import { findProgram } from "../../lib/kinds/video/program.ts";
import { Clips, ffmpeg, lasting } from "../../testkit/clips.ts";

/** Clips taken apart by the real program. */

jest.setTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "clips-"));
let clips: Clips;
let options: FramesOptions;
let clip: Buffer;

beforeAll(async () => {
  const program = await ffmpeg();
  clips = new Clips(program, folder);
  options = {
    ffmpeg: program,
    everySeconds: 1,
    maxSeconds: 20,
    maxPixels: 4096 * 2304,
    maxMemoryBytes: 768 * 2 ** 20,
    maxCpuMs: 20_000,
  };
  clip = await clips.colours("clip.mp4", { red: 2, lime: 1.5 });
}, 180_000);
afterAll(() => rmSync(folder, { recursive: true }));

const frames = (bytes: Buffer, more: Partial<FramesOptions> = {}, container: Container = "mov") =>
  framesOf(bytes, container, { ...options, ...more }, new AbortController().signal);

const refusal = (bytes: Buffer, more: Partial<FramesOptions> = {}, container: Container = "mov") =>
  frames(bytes, more, container).then(
    (found) => `${found.length} frames`,
    ({ type, message }) => `${type}: ${message}`,
  );

async function colourOf(jpeg: Uint8Array): Promise<string> {
  const { dominant } = await sharp(jpeg).stats();
  const { r, g, b } = dominant;
  return r > 200 && g < 60 ? "red" : g > 200 && r < 60 ? "lime" : `${r},${g},${b}`;
}

test("a frame of each second comes with its time, the first included", async () => {
  const found = await frames(clip);
  expect(found.map(({ atSeconds }) => atSeconds)).toEqual([0, 1, 2, 3]);
  expect(await Promise.all(found.map(({ jpeg }) => colourOf(jpeg)))).toEqual(["red", "red", "lime", "lime"]);
});

test("frames come as often as is wanted, and are the same each time", async () => {
  const half = await frames(clip, { everySeconds: 0.5 });
  expect(half.map(({ atSeconds }) => atSeconds)).toEqual([0, 0.5, 1, 1.5, 2, 2.5, 3]);
  expect((await frames(clip, { everySeconds: 0.5 })).map(({ jpeg }) => jpeg)).toEqual(
    half.map(({ jpeg }) => jpeg),
  );
});

test.each<[string, Container, readonly string[]]>([
  ["telephone.mov", "mov", ["-c:v", "libx264"]],
  ["browser.webm", "matroska", ["-c:v", "libvpx-vp9"]],
  ["old.avi", "avi", ["-c:v", "mpeg4"]],
  ["camera.mkv", "matroska", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]],
])(
  "%s is read",
  async (name, container, codec) => {
    const bytes = await clips.colours(name, { red: 1, lime: 1 }, ...codec);
    expect((await frames(bytes, {}, container)).map(({ atSeconds }) => atSeconds)).toEqual([0, 1]);
  },
  30_000,
);

test("large frames are scaled down, their shape kept", async () => {
  const bytes = await clips.make(
    "large.mp4",
    "-f",
    "lavfi",
    "-i",
    "testsrc=size=1080x1920:rate=5:duration=1",
  );
  const [first] = await frames(bytes);
  const { width, height } = await sharp(first?.jpeg).metadata();
  expect([width, height]).toEqual([480, 854]);
});

test("a header that says ten hours is not believed", async () => {
  const found = await frames(lasting(clip, 36_000));
  expect(found.map(({ atSeconds }) => atSeconds)).toEqual([0, 1, 2, 3]);
});

test("a clip of 21 seconds is too long, whatever its header says", async () => {
  const bytes = await clips.make("long.mp4", "-f", "lavfi", "-i", "color=red:size=64x64:rate=1:duration=22");
  expect(await refusal(bytes)).toMatch("VIDEO_TOO_LONG");
  expect(await refusal(lasting(bytes, 1))).toMatch("VIDEO_TOO_LONG");
});

test("a hundred thousand tiny frames are a clip that is too long", async () => {
  const bytes = await clips.make(
    "tiny.mp4",
    ...["-f", "lavfi", "-i", "color=red:size=16x16:rate=1000:duration=100", "-c:v", "mpeg4"],
  );
  expect(await refusal(bytes)).toMatch("VIDEO_TOO_LONG");
});

test("frames of 16,000 × 16,000 pixels are refused before they are decoded", async () => {
  const bytes = await clips.make(
    "huge.avi",
    ...["-f", "lavfi", "-i", "color=red:size=16000x16000:rate=1:duration=1", "-frames:v", "1"],
    ...["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"],
  );
  expect(await refusal(bytes, {}, "avi")).toMatch("TOO_MANY_PIXELS");
});

test("what is cut short, has no frames or is no clip is refused", async () => {
  const sound = await clips.make("sound.mp4", "-f", "lavfi", "-i", "anullsrc", "-t", "1");
  for (const bytes of [
    clip.subarray(0, clip.length / 2),
    clip.subarray(0, 100),
    sound,
    Buffer.from("\0\0\0\x14ftypisom\0\0\0\0isom"),
    Buffer.alloc(100_000, "ftyp"),
    Buffer.alloc(0),
  ]) {
    expect(await refusal(bytes)).toMatch("INVALID_VIDEO");
  }
});

test("a clip is read as what it was taken for, and not as what FFmpeg would take it for", async () => {
  const webm = await clips.colours("taken.webm", { red: 1 }, "-c:v", "libvpx-vp9");
  expect(await refusal(webm, {}, "matroska")).toBe("1 frames");
  expect(await refusal(webm, {}, "mov")).toMatch("INVALID_VIDEO");
});

test.each([
  ["a playlist", `#EXTM3U\n#EXTINF:1,\nfile://${folder}/clip.mp4\n#EXT-X-ENDLIST\n`],
  ["a list to join", `ffconcat version 1.0\nfile '${folder}/clip.mp4'\n`],
])("%s that names a clip of this machine is not followed, whatever it is taken for", async (_, text) => {
  for (const container of ["mov", "matroska", "avi"] as const) {
    expect(await refusal(Buffer.from(text), {}, container)).toMatch("INVALID_VIDEO");
  }
});

test("a decoder that takes too much memory or time is ended", async () => {
  const large = await clips.make("4k.mp4", "-f", "lavfi", "-i", "testsrc=size=3840x2160:rate=10:duration=2");
  expect(await refusal(large)).toBe("2 frames");
  expect(await refusal(large, { maxMemoryBytes: 40 * 2 ** 20 })).toMatch("too much memory");
  expect(await refusal(large, { maxCpuMs: 30 })).toMatch("too long to decode");
  expect(await refusal(large, { maxPixels: 3840 * 2000 })).toMatch("TOO_MANY_PIXELS");
});

test("nothing of a clip is left on the disk, however it ended", async () => {
  const ours = () => readdirSync(tmpdir()).filter((name) => name.startsWith("dl-lambda-"));
  const giveUp = new AbortController();
  const work = framesOf(clip, "mov", options, giveUp.signal);
  giveUp.abort(new Error("nobody waits"));
  await expect(work).rejects.toThrow("nobody waits");
  await frames(clip);
  await refusal(clip.subarray(0, 100));
  expect(ours()).toEqual([]);
});

test("without the program it is said what to install", async () => {
  await expect(findProgram("ffmpeg", join(folder, "none"))).rejects.toMatchObject({
    type: "DECODER_MISSING",
    message: expect.stringContaining("apt-get install ffmpeg"),
  });
  await expect(findProgram("no-such-program", "")).rejects.toMatchObject({ type: "DECODER_MISSING" });
  expect(await findProgram("ffmpeg", options.ffmpeg)).toBe(options.ffmpeg);
});
