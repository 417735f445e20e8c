import { z } from "zod";
import type { TensorSpec } from "../../engines/tensors.ts";
import type { Kind } from "../kind.ts";
import { CLIP, type VideoInfo, type VideoInput } from "./input.ts";

const seconds = z.number().positive().max(86_400);
const part = z.strictObject({ name: z.literal("video") });
type VideoPart = Readonly<z.infer<typeof part>>;

/**
 * Clips. No manifest has this kind: no runtime takes a clip as it is. Who answers about one has it taken apart and asks
 * others about its frames, see `mixins/video.mixin.ts`.
 */
export const video: Kind<VideoPart, VideoInput, VideoInfo> = {
  name: "video",
  accepts: ["video/mp4", "video/quicktime", "video/webm", "video/x-matroska", "video/x-msvideo"],
  field: "video",
  noun: "video",
  limit: "maxVideoBytes",
  part,
  wanted: z.looseObject({ everySeconds: seconds, maxSeconds: seconds }),
  contradictions: () => [],
  wants: () => ({ type: "video", everySeconds: 1, maxSeconds: 1 }),
  prepared: () => [{ name: CLIP, dtype: "uint8", shape: [null] }] satisfies TensorSpec[],
  collate: ([first]) => first ?? {},

  async open(options) {
    const { VideoPreparer } = await import("./preparer.ts");
    return new VideoPreparer(options);
  },
};
