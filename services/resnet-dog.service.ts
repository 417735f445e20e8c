import { defineService } from "../lib/define.ts";
import { ImageClassifier } from "../mixins/image-classifier.mixin.ts";

export default defineService()({
  name: "resnet-dog",
  mixins: [ImageClassifier],
  settings: { model: "pets-resnet", group: "dog", question: "Is it a dog?" },
});
