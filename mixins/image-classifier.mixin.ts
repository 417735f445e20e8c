import { defineMixin } from "../lib/define.ts";
import { classifierSettings } from "../lib/models/settings.ts";
import type { ClassificationAsk } from "../lib/tasks/classification.ts";
import { Model } from "./model.mixin.ts";

/**
 * A yes/no question put to an image classifier. The whole of a service:
 *
 *     export default defineService()({
 *       name: "resnet-cat",
 *       mixins: [ImageClassifier],
 *       settings: { model: "pets-resnet", group: "cat", question: "Is it a cat?" },
 *     });
 */
export const ImageClassifier = defineMixin()({
  mixins: [Model],

  settings: classifierSettings,

  methods: {
    ask(): ClassificationAsk {
      const { group, threshold } = this.settings;
      return { group, threshold };
    },
  },
});
