import { hash } from "node:crypto";
import {
  type Computed,
  Dispatcher,
  type DispatcherOptions,
  type Predict,
} from "../../../../lib/dispatch/dispatcher.ts";
import { MemoryStore, OutputCache } from "../../../../lib/dispatch/output-cache.ts";
import {
  ModelUnavailableError,
  PredictionFailedError,
  QueueFullError,
  ServingError,
} from "../../../../lib/errors.ts";
import type { ImageInput } from "../../../../lib/kinds/image/input.ts";
import type { Input, InputSpec, Preparer } from "../../../../lib/kinds/kind.ts";
import type { KnownModel, KnownVersion } from "../../../../lib/models/catalog.ts";
import { Retry } from "../../../../lib/request/retry.ts";
import { createScope, type Scope } from "../../../../lib/request/scope.ts";
import type { ItemAnswer, PredictResult } from "../../../../lib/types.ts";
import { FakeClock } from "../../../../testkit/fake-clock.ts";

const SMALL: ImageInput = { type: "image", width: 2, height: 1 };
const LARGE: ImageInput = { type: "image", width: 4, height: 1 };

interface Served {
  readonly network?: string;
  readonly version?: number;
  readonly group?: readonly number[];
  readonly input?: InputSpec;
  readonly replicas?: readonly string[];
  readonly trial?: true;
}

function version(name: string, served: Served): KnownVersion {
  const { network = name, version = 1, group = [0], input = SMALL, replicas = ["n"] } = served;
  const fingerprint = `${network}/${version}`;
  return {
    id: { name: network, version, fingerprint },
    action: `${fingerprint}.${name}.predict`,
    input,
    task: {
      name: "classification",
      spec: { labels: ["cat", "dog"] },
      question: { group, threshold: 0.5 },
    },
    replicas,
    first: replicas,
    ...(served.trial ? { trial: true as const } : {}),
  };
}

function model(name: string, ...served: Served[]): KnownModel {
  const [first = {}, ...more] = served;
  return {
    name,
    question: "?",
    batching: { maxBatchSize: 1, maxQueueSize: 1, maxQueueDelayMs: 0, concurrency: 1 },
    versions: [version(name, first), ...more.map((each) => version(name, each))],
  };
}

/** Sees a cat. */
const catSeen: Predict = async (action, { model }) => {
  if (!model || !action.startsWith(model.fingerprint))
    throw new Error(`asked ${model?.fingerprint} of ${action}`);
  return {
    model,
    node: "n",
    items: [
      {
        ok: true,
        output: Float32Array.of(0.75, 0.25),
        batchSize: 1,
        dispatchReason: "idle",
        timing: { queueMs: 0, computeMs: 1 },
      },
    ],
  } satisfies PredictResult;
};

const YES = { answer: true, probability: 0.75, node: "n", batchSize: 1 };

/** A dispatcher whose kind only counts, and whose images are the text of what happens to them. */
function dispatcher(models: readonly KnownModel[], options: Partial<DispatcherOptions> = {}) {
  const prepared: string[] = [];
  const called: string[] = [];
  const faults: unknown[] = [];
  const refused: string[] = [];
  let known = models;
  const preparer: Preparer = {
    async inspect({ bytes }) {
      if (text(bytes) === "broken") throw new ServingError("INVALID_IMAGE", "broken");
      return { sha256: hash("sha256", bytes) };
    },
    async prepare({ bytes }, wanted) {
      const { width, height } = wanted as ImageInput;
      prepared.push(`${text(bytes)} ${width}×${height}`);
      if (text(bytes) === "truncated") throw new ServingError("INVALID_IMAGE", "truncated");
      return {};
    },
    async close() {},
  };
  const made = new Dispatcher({
    nodeID: "here",
    preparer: async () => preparer,
    models: { list: () => known, get: (name) => known.find((each) => each.name === name) },
    retry: new Retry({ delayMs: 0 }),
    maxInFlight: 2,
    onFault: (error) => faults.push(error),
    onRefusal: (name, code) => refused.push(`${name} ${code}`),
    ...options,
  });
  const ask = async (
    images: string[],
    {
      predict = catSeen,
      scope = createScope(),
      ...more
    }: {
      models?: string[];
      kind?: string;
      noStore?: boolean;
      version?: string;
      predict?: Predict;
      scope?: Scope;
    } = {},
  ) => {
    const inputs: Input[] = images.map((image) => ({ bytes: Buffer.from(image), type: "image/png" }));
    const counted: Predict = (action, ...rest) => {
      called.push(action.split(".").at(-2) ?? action);
      return predict(action, ...rest);
    };
    return made.ask({ kind: "image", inputs, ...more }, scope, counted);
  };
  const change = (...now: KnownModel[]) => {
    known = now;
  };
  return { ask, prepared, called, faults, refused, change };
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();
const caching = () => ({
  cache: new OutputCache<Computed>(new MemoryStore({ ttlMs: 60_000, maxEntries: 9 })),
});
const resultsOf = (item: ItemAnswer | undefined) => (item && "results" in item ? item.results : {});

describe("Dispatcher", () => {
  test("asks every model and prepares the image once for each distinct input", async () => {
    const { ask, prepared } = dispatcher([model("a"), model("b"), model("c", { input: LARGE })]);
    const { items } = await ask(["photo"]);
    expect(items).toMatchObject([{ results: { a: YES, b: YES, c: YES } }]);
    expect(prepared.sort()).toEqual(["photo 2×1", "photo 4×1"]);
  });

  test("asks only the models that are named, and answers in their order", async () => {
    const { ask } = dispatcher([model("a"), model("b"), model("c")]);
    const { items } = await ask(["photo"], { models: ["c", "a"] });
    expect(Object.keys(resultsOf(items[0]))).toEqual(["c", "a"]);
  });

  test("a model that fails takes only its own place", async () => {
    const { ask } = dispatcher([model("a"), model("b")]);
    const predict: Predict = async (action, ...rest) => {
      if (action.endsWith(".a.predict")) throw new QueueFullError("a", 1);
      return catSeen(action, ...rest);
    };
    const { items } = await ask(["photo"], { predict });
    expect(items).toMatchObject([{ results: { a: { error: { code: "QUEUE_FULL" } }, b: YES } }]);
  });

  test.each(["broken", "truncated"])("an image that is %s takes only its own place", async (bad) => {
    const { ask } = dispatcher([model("a")]);
    const { items } = await ask(["photo", bad]);
    expect(items).toMatchObject([{ results: { a: YES } }, { error: { code: "INVALID_IMAGE" } }]);
  });

  test("a tensor that only the model refuses takes only the model's place", async () => {
    const { ask } = dispatcher([model("a")]);
    const predict: Predict = async () => {
      throw new ServingError("BAD_REQUEST", "wrong shape");
    };
    const { items } = await ask(["photo"], { predict });
    expect(items).toMatchObject([{ results: { a: { error: { code: "BAD_REQUEST" } } } }]);
  });

  test("an unknown model fails the request, not one place in it", async () => {
    const { ask } = dispatcher([model("a")]);
    await expect(ask(["photo"], { models: ["../a"] })).rejects.toMatchObject({ type: "MODEL_NOT_FOUND" });
  });

  test("a model of another kind is not asked, and refused by name", async () => {
    const { ask, called } = dispatcher([model("a"), model("words", { input: { type: "text" } })]);
    await ask(["photo"]);
    expect(called).toEqual(["a"]);
    await expect(ask(["photo"], { models: ["a", "words"] })).rejects.toMatchObject({
      type: "BAD_REQUEST",
      message: "words takes text, not image",
    });
  });

  test("no model at all is unavailable", async () => {
    await expect(dispatcher([]).ask(["photo"])).rejects.toMatchObject({ type: "MODEL_UNAVAILABLE" });
  });

  test("what is prepared after the deadline is not computed", async () => {
    const { ask, called } = dispatcher([model("a")]);
    const scope = createScope({ deadline: performance.now() - 1 });
    const { items } = await ask(["photo"], { scope });
    expect(items).toMatchObject([{ results: { a: { error: { code: "DEADLINE_EXCEEDED" } } } }]);
    expect(called).toEqual([]);
  });

  test("what a decode took is told without the wait for its turn", async () => {
    const clock = new FakeClock();
    const seconds: number[] = [];
    const preparer: Preparer = {
      inspect: async () => ({ sha256: "0" }),
      async prepare(_input, _wanted, scope, onStart) {
        await clock.advance(5_000);
        onStart?.();
        await clock.advance(40);
        expect(scope.clock.now()).toBe(5_040);
        return {};
      },
      async close() {},
    };
    const { ask } = dispatcher([model("a")], {
      preparer: async () => preparer,
      onDecode: (took) => seconds.push(took),
    });
    const { items } = await ask(["photo"], { scope: createScope({ clock }) });
    expect(seconds).toEqual([0.04]);
    expect(items).toMatchObject([{ timing: { decodeMs: 40 } }]);
  });

  test("a fault of ours is told to the log, which the client is referred to", async () => {
    const { ask, faults } = dispatcher([model("a")]);
    const fault = new Error("secret");
    const predict: Predict = async () => {
      throw fault;
    };
    const { items } = await ask(["photo"], { predict });
    expect(items).toMatchObject([{ results: { a: { error: { code: "INTERNAL" } } } }]);
    expect(JSON.stringify(items)).not.toContain("secret");
    expect(faults).toEqual([fault]);
  });
});

describe("two questions to one network", () => {
  const cat = (more: Served = {}) => model("cat", { network: "pets", ...more });
  const dog = (more: Served = {}) => model("dog", { network: "pets", group: [1], ...more });

  test("are answered from one call, each for itself", async () => {
    const { ask, called, prepared } = dispatcher([cat(), dog()]);
    const { items } = await ask(["photo"]);
    expect(items).toMatchObject([
      { results: { cat: { answer: true, probability: 0.75 }, dog: { answer: false, probability: 0.25 } } },
    ]);
    expect([called.length, prepared.length]).toEqual([1, 1]);
  });

  test("one after the other are computed once", async () => {
    const { ask, called } = dispatcher([cat(), dog()], caching());
    await ask(["photo"], { models: ["cat"] });
    const { items } = await ask(["photo"], { models: ["dog"] });
    expect(items).toMatchObject([{ results: { dog: { answer: false, probability: 0.25, cached: true } } }]);
    expect(called).toEqual(["cat"]);
  });

  test("go to the service with least to do", async () => {
    const { ask, called } = dispatcher([cat(), dog()]);
    const gate = Promise.withResolvers<PredictResult>();
    void ask(["1"], { models: ["cat"], predict: () => gate.promise });
    await new Promise((resolve) => setImmediate(resolve));
    await ask(["2"]);
    expect(called).toEqual(["cat", "dog"]);
    gate.reject(new Error("over"));
  });

  test("are answered in their places when one of the services is away", async () => {
    const { ask, called, refused } = dispatcher([cat({ replicas: [] }), dog()]);
    const { items } = await ask(["photo"]);
    expect(items).toMatchObject([
      {
        results: {
          cat: { error: { code: "MODEL_UNAVAILABLE", retryable: true } },
          dog: { probability: 0.25 },
        },
      },
    ]);
    expect([called, refused]).toEqual([["dog"], ["cat MODEL_UNAVAILABLE"]]);
  });
});

describe("a kept answer", () => {
  test("says so, by whom, and repeats no old timing", async () => {
    const { ask } = dispatcher([model("a")], caching());
    await ask(["photo"]);
    const { items } = await ask(["photo"]);
    expect(resultsOf(items[0])["a"]).toEqual({
      answer: true,
      probability: 0.75,
      labels: expect.any(Array),
      model: { name: "a", version: 1 },
      node: "here",
      batchSize: 0,
      timing: { queueMs: 0, computeMs: 0 },
      cached: true,
    });
  });

  test("is another one's for another version, content or input", async () => {
    const { ask, called, change } = dispatcher([model("a")], caching());
    await ask(["photo"]);
    await ask(["other"]);
    change(model("a", { version: 2 }));
    await ask(["photo"]);
    change(model("a", { version: 2, input: LARGE }));
    await ask(["photo"]);
    expect(called).toHaveLength(4);
  });

  test("is not for who wants none", async () => {
    const { ask, called } = dispatcher([model("a")], caching());
    for (const noStore of [true, true, false]) await ask(["photo"], { noStore });
    expect(called).toHaveLength(3);
  });

  test("is not for a model that is away", async () => {
    const { ask, change } = dispatcher([model("a")], caching());
    await ask(["photo"]);
    change(model("a", { replicas: [] }));
    const { items } = await ask(["photo"]);
    expect(items).toMatchObject([{ results: { a: { error: { code: "MODEL_UNAVAILABLE" } } } }]);
  });
});

describe("a flood on one model", () => {
  test("is refused unprepared and leaves the others alone", async () => {
    const { ask, prepared, refused } = dispatcher([model("a"), model("b")]);
    const gate = Promise.withResolvers<void>();
    const predict: Predict = async (action, ...rest) => {
      if (action.endsWith(".a.predict")) await gate.promise;
      return catSeen(action, ...rest);
    };
    const flood = ["1", "2", "3"].map((image) => ask([image], { models: ["a"], predict }));
    expect((await flood[2])?.items).toMatchObject([{ results: { a: { error: { code: "QUEUE_FULL" } } } }]);
    expect((await ask(["4"], { models: ["b"], predict })).items).toMatchObject([{ results: { b: YES } }]);
    expect(refused).toEqual(["a QUEUE_FULL"]);
    gate.resolve();
    for (const request of flood.slice(0, 2)) {
      expect((await request).items).toMatchObject([{ results: { a: YES } }]);
    }
    expect((await ask(["5"], { models: ["a"], predict })).items).toMatchObject([{ results: { a: YES } }]);
    expect(prepared.map((image) => image[0])).toEqual(["1", "2", "4", "5"]);
  });
});

describe("a model whose replicas differ", () => {
  const both = () =>
    model("a", { version: 1, replicas: ["n1"] }, { version: 2, input: LARGE, replicas: ["n2"] });

  test("is asked for what was prepared for that version, and each version has its share", async () => {
    const { ask, prepared } = dispatcher([both()], { maxInFlight: 40 });
    const images = Array.from({ length: 40 }, (_, i) => `photo ${i}`);
    const { items } = await ask(images);
    const versions = items.map((item) => {
      const answer = resultsOf(item)["a"];
      return answer && "model" in answer ? answer.model.version : 0;
    });
    expect(new Set(versions)).toEqual(new Set([1, 2]));
    const expected = images.map((image, i) => `${image} ${versions[i] === 1 ? "2×1" : "4×1"}`);
    expect(prepared.sort()).toEqual(expected.sort());
  });

  test("answers the same content by the same version, so that it can be kept", async () => {
    const { ask, called } = dispatcher([both()], caching());
    for (let i = 0; i < 9; i++) await ask(["photo"]);
    expect(called).toHaveLength(1);
  });

  test("is looked up anew when the version is gone: nothing of the old one is computed by the new one", async () => {
    const { ask, prepared, change } = dispatcher([model("a")]);
    const predict: Predict = async (action, params, scope) => {
      if (params.model?.version === 1) {
        change(model("a", { version: 2, input: LARGE }));
        throw new ModelUnavailableError("a");
      }
      return catSeen(action, params, scope);
    };
    const { items } = await ask(["photo"], { predict });
    expect(items).toMatchObject([{ results: { a: { ...YES, model: { version: 2 } } } }]);
    expect(prepared).toEqual(["photo 2×1", "photo 4×1"]);
  });

  test("is unavailable when its last version is gone", async () => {
    const { ask, called, change } = dispatcher([model("a")]);
    const predict: Predict = async () => {
      change(model("a", { replicas: [] }));
      throw new ModelUnavailableError("a");
    };
    const { items } = await ask(["photo"], { predict });
    expect(items).toMatchObject([{ results: { a: { error: { code: "MODEL_UNAVAILABLE" } } } }]);
    expect(called).toHaveLength(1);
  });

  test("is not believed when it answers as another version", async () => {
    const { ask } = dispatcher([model("a")]);
    const predict: Predict = async (...call) => ({
      ...(await catSeen(...call)),
      model: { name: "a", version: 2, fingerprint: "a/2" },
    });
    const { items } = await ask(["photo"], { predict });
    expect(items).toMatchObject([{ results: { a: { error: { code: "MODEL_UNAVAILABLE" } } } }]);
  });
});

describe("a version on trial", () => {
  const both = (trial?: true) =>
    model("a", { version: 2, input: LARGE, ...(trial ? { trial } : {}) }, { version: 1, replicas: ["n"] });
  const newFails =
    (error: () => Error = () => new PredictionFailedError("a", "it is bad")): Predict =>
    async (action, params, scope) => {
      if (params.model?.version === 2) throw error();
      return catSeen(action, params, scope);
    };

  test("that fails is replaced by the one before it, with an input made for that", async () => {
    const { ask, prepared } = dispatcher([both(true)]);
    const { items } = await ask(["photo"], { predict: newFails() });
    expect(items).toMatchObject([{ results: { a: { ...YES, model: { version: 1 } } } }]);
    expect(prepared).toEqual(["photo 4×1", "photo 2×1"]);
  });

  test.each<[string, KnownModel, { version?: string }, () => Error]>([
    ["is proven", both(), {}, () => new PredictionFailedError("a", "bad")],
    ["was asked for by name", both(true), { version: "2" }, () => new PredictionFailedError("a", "bad")],
    ["is only full", both(true), {}, () => new QueueFullError("a", 1)],
    [
      "is the only one",
      model("a", { version: 2, trial: true }),
      {},
      () => new PredictionFailedError("a", "bad"),
    ],
  ])("is not replaced if it %s", async (_, known, named, error) => {
    const { ask } = dispatcher([known]);
    const { items } = await ask(["photo"], { predict: newFails(error), ...named });
    expect(items).toMatchObject([{ results: { a: { error: { code: (error() as ServingError).type } } } }]);
  });
});

describe("a request that names a version", () => {
  const both = () => model("a", { version: 2 }, { version: 1 });

  test("is answered by it", async () => {
    const { ask } = dispatcher([both()]);
    const { items } = await ask(["photo"], { version: "1" });
    expect(items).toMatchObject([{ results: { a: { model: { version: 1 } } } }]);
  });

  test("that one of the models does not have fails in that one's place", async () => {
    const { ask } = dispatcher([both(), model("b", { version: 2 })]);
    const { items } = await ask(["photo"], { version: "1" });
    expect(items).toMatchObject([
      { results: { a: YES, b: { error: { code: "VERSION_NOT_FOUND", retryable: false } } } },
    ]);
  });
});
