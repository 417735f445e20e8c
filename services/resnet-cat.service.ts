import { defineService } from "../lib/define.ts";
import { env } from "../lib/env.ts";
import { ImageClassifier } from "../mixins/image-classifier.mixin.ts";

export default defineService()({
  name: "resnet-cat",
  mixins: [ImageClassifier],
  settings: { model: env.MODEL, group: "cat", question: "Is it a cat?" },
});
