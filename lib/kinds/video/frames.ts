import { ServingError } from "../../errors.ts";
import type { Container } from "./container.ts";
import { type Outcome, type Program, runProgram } from "./program.ts";

export interface FramesOptions {
  /** Path of FFmpeg's program. */
  readonly ffmpeg: string;
  /** Seconds between two frames that are wanted. */
  readonly everySeconds: number;
  /** Seconds of the longest clip. */
  readonly maxSeconds: number;
  /** Pixels of a frame. */
  readonly maxPixels: number;
  /** Resident memory of the decoder, bytes. */
  readonly maxMemoryBytes: number;
  /** CPU time of the decoder, milliseconds. */
  readonly maxCpuMs: number;
}

/** A frame of a clip. */
export interface Frame {
  /** From the clip's beginning. */
  readonly atSeconds: number;
  /** JPEG, its short side at most {@link SHORT_SIDE}. */
  readonly jpeg: Uint8Array;
}

/** Pixels that frames are scaled down to: more than image models look at, and little to send. */
const SHORT_SIDE = 480;
/** Of one frame's JPEG, on average. */
const MAX_JPEG_BYTES = 1 << 20;
/** FFmpeg's own largest single allocation, bytes. */
const MAX_ALLOCATION = 128 << 20;
/** What of a clip may be read to find out what is in it, bytes and microseconds. */
const PROBE = { bytes: 5_000_000, us: 5_000_000 };

/**
 * Decoders that may be used, of some four hundred: those of cameras, telephones and browsers. Whatever FFmpeg can also
 * read is more to attack.
 */
const DECODERS = [
  "h264",
  "hevc",
  "vp8",
  "vp9",
  "libdav1d",
  "libaom-av1",
  "av1",
  "mpeg4",
  "mpeg2video",
  "mjpeg",
];

/**
 * Frames of a clip, one for each so many seconds, the first included, in their order.
 *
 * The clip's own word on its length and number of frames is not believed: it is read until a frame lies beyond
 * `maxSeconds`. FFmpeg runs as a process of its own that is told which demuxer to use, has no protocol but that of the
 * one open file, and is killed when it takes more than it may or nobody waits any more.
 *
 * @throws INVALID_VIDEO, VIDEO_TOO_LONG or TOO_MANY_PIXELS, DECODER_MISSING, the reason of `signal`
 */
export async function framesOf(
  clip: Uint8Array,
  container: Container,
  options: FramesOptions,
  signal: AbortSignal,
): Promise<readonly Frame[]> {
  const { maxSeconds, everySeconds, maxPixels, maxMemoryBytes, maxCpuMs } = options;
  const most = Math.floor(maxSeconds / everySeconds) + 1;
  const program: Program = {
    path: options.ffmpeg,
    args: argumentsOf(container, options, most + 1),
    limits: {
      memoryBytes: maxMemoryBytes,
      cpuMs: maxCpuMs,
      // For one that sleeps; one that computes is over its CPU time before, but on a busy machine.
      wallMs: 4 * maxCpuMs,
      outputBytes: (most + 1) * MAX_JPEG_BYTES,
    },
  };
  const { images, times, complaint, ended } = await runProgram(program, clip, signal);
  const jpegs = jpegsIn(images);
  const frames = timesIn(times).flatMap((atSeconds, i) => {
    const jpeg = jpegs[i];
    return jpeg ? [{ atSeconds, jpeg }] : [];
  });
  if (frames.some(({ atSeconds }) => atSeconds > maxSeconds)) throw tooLong(maxSeconds);
  if (frames.length > most) throw tooLong(maxSeconds);
  if (ended === "exit" && frames.length > 0) return frames;
  throw refusal(ended, complaint, maxPixels);
}

function argumentsOf(
  container: Container,
  { everySeconds, maxPixels }: FramesOptions,
  most: number,
): readonly string[] {
  // A hair less than wanted: times are rounded, 0.999967 is a second.
  const select = `isnan(prev_selected_t)+gte(t-prev_selected_t,${(everySeconds * 0.999).toFixed(6)})`;
  const side = (own: string, other: string) =>
    `if(gt(min(iw,ih),${SHORT_SIDE}),if(lt(${own},${other}),${SHORT_SIDE},-2),${own})`;
  const filters = [
    `select='${select}'`,
    `scale=w='${side("iw", "ih")}':h='${side("ih", "iw")}':flags=area`,
    // The times of the frames, on a pipe of their own. It says nothing of one that has no metadata.
    "metadata=mode=add:key=at:value=0",
    "metadata=mode=print:key=at:file=pipe\\\\:3",
  ];
  return [
    ...["-nostdin", "-hide_banner", "-loglevel", "error", "-max_alloc", String(MAX_ALLOCATION)],
    ...["-protocol_whitelist", "file", "-f", container, "-codec_whitelist", DECODERS.join()],
    ...["-probesize", String(PROBE.bytes), "-analyzeduration", String(PROBE.us)],
    ...["-max_pixels", String(maxPixels), "-threads", "1", "-an", "-sn", "-dn"],
    // The file that this process has opened and nobody else finds. Not "pipe:", in which nobody can go back: the table
    // of most telephones' clips stands at their end.
    ...["-i", "file:/dev/fd/0"],
    ...["-map", "0:v:0", "-vf", filters.join(), "-fps_mode", "passthrough", "-frames:v", String(most)],
    ...["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "3", "-threads", "1", "-map_metadata", "-1"],
    ...["-f", "image2pipe", "pipe:1"],
  ];
}

function refusal(ended: Outcome["ended"], complaint: string, maxPixels: number): Error {
  if (complaint.includes("exceeds specified max pixel count")) {
    return new ServingError("TOO_MANY_PIXELS", `A frame may have ${maxPixels} pixels at most`);
  }
  const why = {
    memory: "it takes too much memory to decode",
    time: "it takes too long to decode",
    output: "its frames are too large",
    exit: "it is damaged, empty, or in a format that is not read",
  } as const;
  return new ServingError("INVALID_VIDEO", `The clip cannot be looked at: ${why[ended]}`);
}

function tooLong(maxSeconds: number): Error {
  return new ServingError("VIDEO_TOO_LONG", `A clip may last ${maxSeconds} seconds at most`, { maxSeconds });
}

/** Seconds of the frames, by what the filter "metadata" prints: `frame:0    pts:0       pts_time:0`. */
function timesIn(text: string): readonly number[] {
  return [...text.matchAll(/^frame:\d+\s+pts:\S+\s+pts_time:(\S+)/gm)].map(([, seconds]) =>
    Math.max(0, Math.round(1000 * (Number(seconds) || 0)) / 1000),
  );
}

/**
 * The JPEGs that were written one after the other. The end's two bytes stand nowhere inside of one: in pixels 0xff is
 * followed by 0x00, and FFmpeg writes no thumbnails.
 */
function jpegsIn(bytes: Buffer): readonly Uint8Array[] {
  const end = Buffer.of(0xff, 0xd9);
  const found: Uint8Array[] = [];
  for (let from = 0, at = bytes.indexOf(end); at >= 0; at = bytes.indexOf(end, from)) {
    found.push(bytes.subarray(from, at + end.length));
    from = at + end.length;
  }
  return found;
}
