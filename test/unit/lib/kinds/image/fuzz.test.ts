import fc from "fast-check";
import { ImagePipeline } from "../../../../../lib/kinds/image/pipeline.ts";
import { damaged, fuzz, structures } from "../../../../../testkit/fuzz-images.ts";
import { bases, goodFiles } from "./samples.ts";

const pipeline = new ImagePipeline({ maxPixels: 4e6 });
const samples = await goodFiles();
const base = await bases();

afterEach(() => {
  expect([pipeline.active, pipeline.waiting]).toEqual([0, 0]);
});

test("a damaged file is a tensor of the right size or an error of ours, never a crash", async () => {
  await fc.assert(
    fc.asyncProperty(damaged(samples), async (bytes) => {
      await fuzz(pipeline, bytes);
    }),
    { numRuns: 600 },
  );
});

test("so is a file of far too many parts", async () => {
  await fc.assert(
    fc.asyncProperty(structures(base), async (bytes) => {
      await fuzz(pipeline, await bytes);
    }),
    { numRuns: 200 },
  );
});
