import { defineService } from "../../../lib/define.ts";
import type { ImageModel } from "../../../lib/image-model.ts";
import { ImageClassifier } from "../../../mixins/image-classifier.mixin.ts";
import { withRuntime } from "./with-runtime.ts";

/** A model that takes the same time for every item. */
export default defineService<{ model: ImageModel }>()({
  name: "steady",
  mixins: [ImageClassifier],
  settings: { model: "pets-resnet", group: "cat", question: "Is it in time?" },
  created() {
    withRuntime(this.model, "steady");
  },
});
