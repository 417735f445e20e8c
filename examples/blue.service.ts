import { resolve } from "node:path";
import { defineService } from "../lib/define.ts";
import { ImageClassifier } from "../mixins/image-classifier.mixin.ts";

/** A TensorFlow model: nothing here says so, its manifest does. */
export default defineService()({
  name: "blue",
  mixins: [ImageClassifier],
  settings: {
    model: "colours",
    group: "blue",
    question: "Is it mostly blue?",
    modelsDir: resolve(import.meta.dirname, "models"),
  },
});
