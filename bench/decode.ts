import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import sharp from "sharp";

import type { ImageInput } from "../lib/kinds/image/input.ts";
import { ImagePipeline } from "../lib/kinds/image/pipeline.ts";
import { usageOf } from "../lib/process/child.ts";

export interface DecodeRate {
  /** Images prepared in a second of wall time. */
  readonly perSecond: number;
  /** CPU time of this process and its decoders, in milliseconds for each image. */
  readonly cpuMsPerImage: number;
}

/**
 * What decoding alone can do: prepares the files in turn for about `seconds`, `concurrency` at a time. The upper
 * bound that the whole service is measured against.
 *
 * @param concurrency default: the pipeline's own
 */
export async function measureDecode(
  files: readonly Uint8Array[],
  input: ImageInput,
  seconds: number,
  concurrency?: number,
): Promise<DecodeRate> {
  const pipeline = new ImagePipeline(concurrency ? { concurrency } : {});
  await pipeline.start();
  // The first decode of a process also loads libvips' modules.
  await Promise.all(files.slice(0, 8).map((file) => pipeline.prepare(file, input)));
  let done = 0;
  const cpu = cpuMs(pipeline);
  const began = performance.now();
  const end = began + seconds * 1000;
  const worker = async () => {
    while (performance.now() < end) {
      const file = files[done++ % files.length];
      if (file) await pipeline.prepare(file, input);
    }
  };
  // Twice as many callers as permits: none of those is ever idle.
  await Promise.all(Array.from({ length: 2 * (concurrency ?? availableParallelism()) }, worker));
  const rate = {
    perSecond: done / ((performance.now() - began) / 1000),
    cpuMsPerImage: (cpuMs(pipeline) - cpu) / done,
  };
  pipeline.close();
  return rate;
}

/** So far, milliseconds. */
function cpuMs(pipeline: ImagePipeline): number {
  return [process.pid, ...pipeline.decoderPids].reduce((sum, pid) => sum + (usageOf(pid)?.cpuMs ?? 0), 0);
}

/**
 * JPEGs like photos, the same for the same seed: a gradient, soft shapes and a sensor's noise, 500×375 and about
 * 109 KB each, the size of the reference figures.
 */
export function generatePhotos(count: number, seed = 1): Promise<Buffer[]> {
  return Promise.all(Array.from({ length: count }, (_, i) => generatePhoto(seed + i)));
}

async function generatePhoto(seed: number): Promise<Buffer> {
  const [width, height] = [500, 375];
  const pixels = new Uint8Array(width * height * 3);
  let state = seed;
  const random = () => {
    // Numerical Recipes' linear congruential generator; its high bits are noise enough.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const waves = Array.from({ length: 12 }, () => ({
    x: random() / 12,
    y: random() / 12,
    phase: random() * 7,
    channel: Math.floor(random() * 3),
  }));
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const colour = [60 + x / 4, 70 + y / 4, 180 - y / 4];
      for (const wave of waves) {
        colour[wave.channel] =
          (colour[wave.channel] ?? 0) + 14 * Math.sin(x * wave.x + y * wave.y + wave.phase);
      }
      const grain = (random() - 0.5) * 46;
      colour.forEach((value, channel) => {
        pixels[(y * width + x) * 3 + channel] = Math.max(0, Math.min(255, value + grain));
      });
    }
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    .jpeg({ quality: 95 })
    .toBuffer();
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: "string", default: "3" },
      side: { type: "string", default: "224" },
      json: { type: "boolean", default: false },
    },
  });
  const [folder] = positionals;
  const files = folder
    ? readdirSync(folder)
        .filter((name) => /\.(jpe?g|png|webp|gif|avif|tiff?)$/i.test(name))
        .map((name) => readFileSync(join(folder, name)))
    : await generatePhotos(8);
  if (files.length === 0) throw new Error(`No images in ${folder}`);
  const side = Number(values.side);
  const input: ImageInput = { type: "image", width: side, height: side };
  const meanBytes = Math.round(files.reduce((sum, file) => sum + file.length, 0) / files.length);

  const pipeline = new ImagePipeline();
  const cpu = process.cpuUsage();
  const rounds = Math.ceil(400 / files.length);
  for (let round = 0; round < rounds; round += 1) for (const file of files) await pipeline.inspect(file);
  const { user, system } = process.cpuUsage(cpu);
  const inspectCpuMs = (user + system) / 1000 / (rounds * files.length);

  console.log(`${files.length} images of ${Math.round(meanBytes / 1024)} KiB on average → ${side}×${side}`);
  console.log(`header and hash: ${inspectCpuMs.toFixed(2)} ms CPU per image`);
  console.log("at once   images/s   ms CPU per image");
  const decode = [];
  for (const concurrency of [1, 2, 3, 4]) {
    const rate = await measureDecode(files, input, Number(values.seconds), concurrency);
    decode.push({ concurrency, ...rate });
    const { perSecond, cpuMsPerImage } = rate;
    console.log(
      `${concurrency}`.padStart(7) +
        perSecond.toFixed(0).padStart(11) +
        cpuMsPerImage.toFixed(2).padStart(19),
    );
  }
  if (values.json) {
    console.log(JSON.stringify({ images: files.length, meanBytes, side, inspectCpuMs, decode }));
  }
}

if (import.meta.main) await main();
