import { resolve } from "node:path";
import { defineService } from "../../lib/define.ts";
import { ImageClassifier } from "../../mixins/image-classifier.mixin.ts";

/** A network of ResNet-50's size with random weights: its answers mean nothing, its time does. */
export default defineService()({
  name: "resnet50",
  mixins: [ImageClassifier],
  settings: {
    model: "resnet50-random",
    group: "cat",
    question: "Is it a cat? (random)",
    modelsDir: resolve(import.meta.dirname, "../../build/models"),
  },
});
