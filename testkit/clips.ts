import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { installed } from "./debian.ts";

const run = promisify(execFile);

/** FFmpeg's program; installed as a Debian package where it is not there and may be. */
export async function ffmpeg(): Promise<string> {
  const found = await installed(["/usr/bin/ffmpeg", "/usr/local/bin/ffmpeg"], "ffmpeg");
  if (found) return found;
  throw new Error("There is no ffmpeg here: install it (Debian: apt-get install ffmpeg)");
}

/** Makes clips in a folder. */
export class Clips {
  readonly #program: string;
  readonly #folder: string;

  constructor(program: string, folder: string) {
    this.#program = program;
    this.#folder = folder;
  }

  /** @param args what ffmpeg is told between its own options and the name of the file */
  async make(name: string, ...args: readonly string[]): Promise<Buffer> {
    const file = join(this.#folder, name);
    await run(this.#program, ["-y", "-loglevel", "error", ...args, file]);
    return readFile(file);
  }

  /** A clip that is one colour after the other, each for so many seconds. */
  colours(
    name: string,
    colours: Readonly<Record<string, number>>,
    ...args: readonly string[]
  ): Promise<Buffer> {
    const all = Object.entries(colours);
    const inputs = all.flatMap(([colour, seconds]) => [
      ...["-f", "lavfi", "-i", `color=${colour}:size=160x120:rate=10:duration=${seconds}`],
    ]);
    const joined = `${all.map((_, i) => `[${i}]`).join("")}concat=n=${all.length}[v]`;
    return this.make(
      name,
      ...inputs,
      "-filter_complex",
      joined,
      "-map",
      "[v]",
      "-pix_fmt",
      "yuv420p",
      ...args,
    );
  }
}

/** The same MP4 whose header says that it lasts so many seconds. */
export function lasting(clip: Buffer, seconds: number): Buffer {
  const lying = Buffer.from(clip);
  // ISO/IEC 14496-12: after a box's name 4 bytes of version and flags, times of creation and change; then in the movie's
  // and the media's header the ticks of a second and the duration, in the track's its id, 4 bytes, and the duration.
  for (const [box, at] of [
    ["mvhd", 20],
    ["tkhd", 24],
    ["mdhd", 20],
  ] as const) {
    const start = lying.indexOf(box);
    const ticks = box === "tkhd" ? 1000 : lying.readUInt32BE(start + 16);
    lying.writeUInt32BE(Math.min(seconds * ticks, 2 ** 32 - 1), start + at);
  }
  return lying;
}
