import { createHash } from "node:crypto";
import type { Tensors } from "../../engines/tensors.ts";
import { ServingError } from "../../errors.ts";
import type { Scope } from "../../request/scope.ts";
import type { Input, KindOptions, Preparer } from "../kind.ts";
import { containerOf } from "./container.ts";
import { CLIP, type VideoInfo, type VideoInput } from "./input.ts";

/** The video kind in the dispatcher: looks at a clip's first bytes, and hands it on. */
export class VideoPreparer implements Preparer<VideoInput, VideoInfo> {
  readonly #maxBytes: number;

  constructor({ maxBytes }: Pick<KindOptions, "maxBytes">) {
    this.#maxBytes = maxBytes;
  }

  /** @throws PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE for what is no clip that can be read */
  async inspect({ bytes }: Input): Promise<VideoInfo> {
    if (bytes.length > this.#maxBytes) {
      throw new ServingError("PAYLOAD_TOO_LARGE", `A clip may have ${this.#maxBytes} bytes at most`);
    }
    const format = containerOf(bytes);
    if (!format) {
      throw new ServingError(
        "UNSUPPORTED_MEDIA_TYPE",
        "Expected a clip in MP4, QuickTime, WebM, Matroska or AVI",
      );
    }
    return { sha256: createHash("sha256").update(bytes).digest("hex"), format, bytes: bytes.length };
  }

  async prepare({ bytes }: Input, _: VideoInput, __: Scope, onStart?: () => void): Promise<Tensors> {
    onStart?.();
    return { [CLIP]: { dtype: "uint8", shape: [1, bytes.length], data: bytes } };
  }

  async close(): Promise<void> {}
}
