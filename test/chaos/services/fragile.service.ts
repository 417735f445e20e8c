import { defineService } from "../../../lib/define.ts";
import type { ImageModel } from "../../../lib/image-model.ts";
import { ImageClassifier } from "../../../mixins/image-classifier.mixin.ts";
import { withRuntime } from "./with-runtime.ts";

/** A model that two of the suite's images kill. */
export default defineService<{ model: ImageModel }>()({
  name: "fragile",
  mixins: [ImageClassifier],
  settings: { model: "pets-resnet", group: "cat", question: "Does it survive?" },
  created() {
    withRuntime(this.model, "fragile");
  },
});
