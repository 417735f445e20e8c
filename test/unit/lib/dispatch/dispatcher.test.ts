import { Dispatcher, type DispatchRequest } from "../../../../lib/dispatch/dispatcher.ts";
import { QueueFullError, ServingError } from "../../../../lib/errors.ts";
import type { ImageInput } from "../../../../lib/kinds/image/kind.ts";
import type { ImagePipeline } from "../../../../lib/kinds/image/pipeline.ts";
import type { ModelAnswer, ModelDescription } from "../../../../lib/types.ts";

const input: ImageInput = { type: "image", width: 2, height: 1 };

const model = (name: string, more: Partial<ModelDescription> = {}): ModelDescription => ({
  name,
  question: "?",
  model: { name: "net", version: 1 },
  input,
  labels: ["yes"],
  batching: { maxBatchSize: 1, maxQueueSize: 1, maxQueueDelayMs: 0, concurrency: 1 },
  state: "ready",
  replicas: ["n"],
  ...more,
});

const ANSWER: ModelAnswer = {
  answer: true,
  probability: 1,
  labels: [],
  model: { name: "net", version: 1 },
  node: "n",
  batchSize: 1,
  dispatchReason: "idle",
  timing: { queueMs: 0, computeMs: 1 },
};

/** A dispatcher whose pipeline only counts, and whose images are the text of what happens to them. */
function dispatcher(models: readonly ModelDescription[]) {
  const prepared: string[] = [];
  const pipeline = {
    inspect: async (bytes: Uint8Array) => {
      if (Buffer.from(bytes).toString() === "broken") throw new ServingError("INVALID_IMAGE", "broken");
      return {
        width: 1,
        height: 1,
        format: "png",
        bytes: bytes.length,
        sha256: Buffer.from(bytes).toString("hex"),
      };
    },
    prepare: async (bytes: Uint8Array, { width, height }: ImageInput) => {
      const text = Buffer.from(bytes).toString();
      prepared.push(`${text} ${width}×${height}`);
      if (text === "truncated") throw new ServingError("INVALID_IMAGE", "truncated");
      return new Uint8Array(width * height * 3);
    },
  } as unknown as ImagePipeline;
  const made = new Dispatcher({ pipeline, models: () => models, maxInFlight: 2 });
  const classify = (images: string[], more: Partial<DispatchRequest> = {}) =>
    made.classify({ images: images.map((text) => Buffer.from(text)), predict: async () => ANSWER, ...more });
  return { classify, prepared };
}

describe("Dispatcher", () => {
  test("asks every model and prepares the image once for each distinct input", async () => {
    const large: ImageInput = { ...input, width: 4 };
    const { classify, prepared } = dispatcher([model("a"), model("b"), model("c", { input: large })]);
    const { items } = await classify(["photo"]);
    expect(items).toMatchObject([{ results: { a: ANSWER, b: ANSWER, c: ANSWER } }]);
    expect(prepared.sort()).toEqual(["photo 2×1", "photo 4×1"]);
  });

  test("asks only the models that are named", async () => {
    const { classify } = dispatcher([model("a"), model("b")]);
    const { items } = await classify(["photo"], { models: ["b"] });
    expect(items).toMatchObject([{ results: { b: ANSWER } }]);
    expect(items[0]).not.toHaveProperty("results.a");
  });

  test("a model that fails takes only its own place", async () => {
    const { classify } = dispatcher([model("a"), model("b")]);
    const predict = async (name: string) => {
      if (name === "a") throw new QueueFullError("a", 1);
      return ANSWER;
    };
    const { items } = await classify(["photo"], { predict });
    expect(items).toMatchObject([{ results: { a: { error: { code: "QUEUE_FULL" } }, b: ANSWER } }]);
  });

  test("a model without replicas is unavailable and is not called", async () => {
    const { classify, prepared } = dispatcher([model("a", { state: "unavailable", replicas: [] })]);
    const { items } = await classify(["photo"]);
    expect(items).toMatchObject([{ results: { a: { error: { code: "MODEL_UNAVAILABLE" } } } }]);
    expect(prepared).toEqual([]);
  });

  test.each(["broken", "truncated"])("an image that is %s takes only its own place", async (bad) => {
    const { classify } = dispatcher([model("a")]);
    const { items } = await classify(["photo", bad]);
    expect(items).toMatchObject([{ results: { a: ANSWER } }, { error: { code: "INVALID_IMAGE" } }]);
  });

  test("an unknown model fails the request, not one place in it", async () => {
    const { classify } = dispatcher([model("a")]);
    await expect(classify(["photo"], { models: ["../a"] })).rejects.toMatchObject({
      type: "MODEL_NOT_FOUND",
    });
  });

  test("a flood on one model is refused undecoded and leaves the others alone", async () => {
    const { classify, prepared } = dispatcher([model("a"), model("b")]);
    const gate = Promise.withResolvers<ModelAnswer>();
    const predict = (name: string) => (name === "a" ? gate.promise : Promise.resolve(ANSWER));
    const flood = ["1", "2", "3"].map((image) => classify([image], { models: ["a"], predict }));
    const third = await flood[2];
    expect(third?.items).toMatchObject([{ results: { a: { error: { code: "QUEUE_FULL" } } } }]);
    expect((await classify(["4"], { models: ["b"], predict })).items).toMatchObject([
      { results: { b: ANSWER } },
    ]);
    gate.resolve(ANSWER);
    for (const request of flood.slice(0, 2))
      expect((await request).items).toMatchObject([{ results: { a: ANSWER } }]);
    expect((await classify(["5"], { models: ["a"], predict })).items).toMatchObject([
      { results: { a: ANSWER } },
    ]);
    expect(prepared.map((text) => text[0])).toEqual(["1", "2", "4", "5"]);
  });

  test("no model at all is unavailable", async () => {
    await expect(dispatcher([]).classify(["photo"])).rejects.toMatchObject({ type: "MODEL_UNAVAILABLE" });
  });

  test("what is decoded after the deadline is not computed", async () => {
    const { classify } = dispatcher([model("a")]);
    const predict = async (): Promise<ModelAnswer> => {
      throw new Error("computed");
    };
    const { items } = await classify(["photo"], { predict, deadline: performance.now() - 1 });
    expect(items).toMatchObject([{ results: { a: { error: { code: "DEADLINE_EXCEEDED" } } } }]);
  });
});
