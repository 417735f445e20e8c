import { defineService } from "../lib/define.ts";
import { env } from "../lib/env.ts";
import { ImageClassifier } from "../mixins/image-classifier.mixin.ts";

export default defineService()({
  name: "resnet-dog",
  mixins: [ImageClassifier],
  settings: { model: env.MODEL, group: "dog", question: "Is it a dog?" },
});
