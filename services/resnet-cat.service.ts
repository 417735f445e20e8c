import { defineService } from "../lib/define.ts";
import { ImageClassifier } from "../mixins/image-classifier.mixin.ts";

export default defineService()({
  name: "resnet-cat",
  mixins: [ImageClassifier],
  settings: { model: "pets-resnet", group: "cat", question: "Is it a cat?" },
});
