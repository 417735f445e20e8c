import type { ImageModel } from "../../../lib/image-model.ts";

/** Makes a model run on another runtime of `test/chaos/runtimes/`, and be itself in everything else. */
export function withRuntime(model: ImageModel, name: string): void {
  const engineSpec = model.engineSpec.bind(model);
  const runtime = new URL(`../runtimes/${name}.ts`, import.meta.url).href;
  model.engineSpec = (threads) => ({ ...engineSpec(threads), runtime });
}
