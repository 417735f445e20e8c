import { defineService } from "../../../lib/define.ts";
import { registerRuntime, runtimeNames } from "../../../lib/engines/runtimes.ts";
import { ImageClassifier } from "../../../mixins/image-classifier.mixin.ts";

/** The shipped model on a runtime of `test/chaos/runtimes/`, and itself in everything else. */
export function modelOn(runtime: string, { name, question }: { name: string; question: string }) {
  if (!runtimeNames().includes(runtime)) {
    const module = new URL(`../runtimes/${runtime}.ts`, import.meta.url);
    // An engine's process knows nothing of this one's environment.
    module.searchParams.set("attempts", process.env["CHAOS_ATTEMPTS"] ?? "");
    registerRuntime(runtime, { module: module.href });
  }
  return defineService()({
    name,
    mixins: [ImageClassifier],
    settings: { model: "pets-resnet", group: "cat", question, runtime, checkGolden: false },
  });
}
