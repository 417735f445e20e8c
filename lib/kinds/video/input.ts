import type { InputSpec, Inspection } from "../kind.ts";
import type { Container } from "./container.ts";

/** What a service of this kind looks at. For clients to know: a dispatcher hands clips on as they are. */
export interface VideoInput extends InputSpec {
  readonly type: "video";
  /** Seconds between two frames that are looked at. */
  readonly everySeconds: number;
  /** Seconds of the longest clip. */
  readonly maxSeconds: number;
}

/** What is known of a clip before any of it is decoded. */
export interface VideoInfo extends Inspection {
  readonly format: Container;
  /** Encoded size. */
  readonly bytes: number;
}

/** The tensor of a prepared clip: its bytes, `[1, any]` uint8. Whoever is asked about it decodes it. */
export const CLIP = "clip";
