import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { access, constants, type FileHandle, open, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import type { Readable } from "node:stream";
import { ServingError } from "../../errors.ts";
import { inheritedEnv, tied, usageOf } from "../../process/child.ts";

/** What a program may take of the machine. */
export interface ProgramLimits {
  /** Resident memory, bytes. */
  readonly memoryBytes: number;
  readonly cpuMs: number;
  /** Time on the clock, milliseconds. */
  readonly wallMs: number;
  /** Of its standard output. */
  readonly outputBytes: number;
}

export interface Program {
  readonly path: string;
  readonly args: readonly string[];
  readonly limits: ProgramLimits;
}

export interface Outcome {
  /** Its standard output. */
  readonly images: Buffer;
  /** What it wrote to file descriptor 3, at most {@link MAX_TEXT}. */
  readonly times: string;
  /** What it wrote to standard error, at most {@link MAX_TEXT}. */
  readonly complaint: string;
  /** By itself, whether well or not; or what it took too much of. */
  readonly ended: "exit" | "memory" | "time" | "output";
}

const MAX_TEXT = 64 * 1024;
/** How often its use is looked at, milliseconds. */
const WATCH_MS = 20;
/** Where files may lie whose folder is not writable otherwise: memory, in containers whose root is read-only. */
const FOLDERS = [tmpdir(), "/dev/shm"];

/**
 * Runs a program with `input` as its standard input: an open file that has no name any more, so that it can be read
 * back and forth, and nothing is left of it however all this ends. The program dies with this process (where there is
 * `setpriv`), when it takes more than it may, and when `signal` aborts.
 *
 * @throws DECODER_MISSING if it cannot be started, the reason of `signal`
 */
export async function runProgram(
  { path, args, limits }: Program,
  input: Uint8Array,
  signal: AbortSignal,
): Promise<Outcome> {
  signal.throwIfAborted();
  const file = await namelessFile(input);
  try {
    signal.throwIfAborted();
    const starter = tied(path);
    const child = spawn(starter.path, [...starter.args, ...args], {
      env: inheritedEnv(),
      stdio: [file.fd, "pipe", "pipe", "pipe"],
    });
    let ended: Outcome["ended"] = "exit";
    const end = (reason: Outcome["ended"]) => {
      if (ended === "exit") ended = reason;
      child.kill("SIGKILL");
    };
    const images = collect(child.stdout as Readable, limits.outputBytes, () => end("output"));
    const complaint = collect(child.stderr as Readable, MAX_TEXT);
    const times = collect(child.stdio[3] as Readable, MAX_TEXT);
    const began = performance.now();
    const watch = setInterval(() => {
      const now = usageOf(child.pid ?? 0);
      if (now && now.memoryBytes > limits.memoryBytes) end("memory");
      else if (now && now.cpuMs > limits.cpuMs) end("time");
      else if (performance.now() - began > limits.wallMs) end("time");
    }, WATCH_MS);
    const giveUp = () => child.kill("SIGKILL");
    signal.addEventListener("abort", giveUp, { once: true });
    try {
      await new Promise<void>((resolve, reject) => {
        child.once("error", (error) => reject(missing(error.message))).once("close", () => resolve());
      });
    } finally {
      clearInterval(watch);
      signal.removeEventListener("abort", giveUp);
    }
    signal.throwIfAborted();
    return { images: images(), times: times().toString(), complaint: complaint().toString(), ended };
  } finally {
    await file.close();
  }
}

/**
 * Where a program is: `given` if that is a path, else the first on the PATH.
 *
 * @throws DECODER_MISSING if there is none that can be run
 */
export async function findProgram(name: string, given: string): Promise<string> {
  const places = given ? [given] : (process.env["PATH"] ?? "").split(delimiter).map((dir) => join(dir, name));
  for (const place of places) {
    const runs = await access(place, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (runs) return place;
  }
  throw missing(given ? `there is none at ${given}` : "there is none on the PATH");
}

function missing(why: string): ServingError {
  return new ServingError(
    "DECODER_MISSING",
    `This needs FFmpeg 5.1 or newer, and ${why}: install it (Debian: apt-get install ffmpeg), or set FFMPEG to its path`,
  );
}

async function namelessFile(bytes: Uint8Array): Promise<FileHandle> {
  let problem: unknown;
  for (const folder of FOLDERS) {
    const path = join(folder, `dl-lambda-${randomUUID()}`);
    try {
      const file = await open(path, "wx+", 0o600);
      try {
        await unlink(path);
        await file.writeFile(bytes);
        return file;
      } catch (error) {
        await file.close();
        problem = error;
      }
    } catch (error) {
      problem = error;
    }
  }
  throw problem;
}

/** Gathers what a stream brings, the first `limit` bytes; the rest is read and forgotten. */
function collect(stream: Readable, limit: number, onLimit = () => {}): () => Buffer {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on("error", () => {});
  stream.on("data", (chunk: Buffer) => {
    const room = limit - size;
    size += chunk.length;
    if (room > 0) chunks.push(chunk.subarray(0, room));
    if (chunk.length > room) onLimit();
  });
  return () => Buffer.concat(chunks);
}
