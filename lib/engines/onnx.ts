import { InferenceSession, Tensor } from "onnxruntime-node";
import type { EngineSpec, Runtime } from "./engine.ts";
import { planeShape, toPlanes } from "./planes.ts";

/** ONNX Runtime on the CPU. */
export default async function load(spec: EngineSpec): Promise<Runtime> {
  const session = await InferenceSession.create(spec.file, {
    intraOpNumThreads: spec.threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    // Its threads would else burn their cores between two runs, which the decoder needs.
    extra: { session: { intra_op: { allow_spinning: "0" } } },
  });
  return {
    async run(pixels, count) {
      const tensor = spec.planes
        ? new Tensor("float32", toPlanes(pixels, spec.itemShape, spec.planes), [
            count,
            ...planeShape(spec.itemShape),
          ])
        : new Tensor("uint8", pixels, [count, ...spec.itemShape]);
      const result = await session.run({ [spec.inputTensor]: tensor }, [spec.outputTensor]);
      const output = result[spec.outputTensor];
      if (!output) throw new Error(`The graph has no output "${spec.outputTensor}"`);
      return output.data as Float32Array;
    },
    dispose: () => session.release(),
  };
}
