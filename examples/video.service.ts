import { defineService } from "../lib/define.ts";
import { Video } from "../mixins/video.mixin.ts";

/** Clips: the image models are asked about a frame of each second. Needs FFmpeg. */
export default defineService()({
  name: "video",
  mixins: [Video],
  settings: { question: "What is in this clip, and when?" },
});
