import { defineService } from "../../../lib/define.ts";
import { registerRuntime, runtimeNames } from "../../../lib/engines/runtimes.ts";
import type { ImageModel } from "../../../lib/kinds/image/model.ts";
import { ImageClassifier } from "../../../mixins/image-classifier.mixin.ts";

/** The shipped model on a runtime of `test/chaos/runtimes/`, and itself in everything else. */
export function modelOn(runtime: string, { name, question }: { name: string; question: string }) {
  if (!runtimeNames().includes(runtime)) {
    registerRuntime(runtime, { module: new URL(`../runtimes/${runtime}.ts`, import.meta.url).href });
  }
  return defineService<{ model: ImageModel }>()({
    name,
    mixins: [ImageClassifier],
    settings: { model: "pets-resnet", group: "cat", question },
    created() {
      const { model } = this;
      const engineSpec = model.engineSpec.bind(model);
      model.engineSpec = (maxBatch) => ({ ...engineSpec(maxBatch), runtime });
    },
  });
}
