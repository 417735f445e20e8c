import type { ServiceSchema } from "moleculer";
import { defineService } from "../../../lib/define.ts";
import { checkedService } from "../../../lib/service-check.ts";
import { StartError } from "../../../lib/start-error.ts";
import { ImageClassifier } from "../../../mixins/image-classifier.mixin.ts";
import dispatcher from "../../../services/dispatcher.service.ts";
import gateway from "../../../services/gateway.service.ts";

const right = { model: "pets-resnet", group: "cat", question: "Is it a cat?" };

/** A module as it is imported, of a service whose settings the compiler has not seen. */
const moduleOf = (name: string, settings: object) => ({
  default: { ...defineService()({ name, mixins: [ImageClassifier], settings: right }), settings },
});

function told(name: string, module: { default?: unknown }): string {
  try {
    checkedService("services/x.service.ts", name, module);
    return "nothing";
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    return error.message;
  }
}

describe("a service file", () => {
  test("that is right is its service", () => {
    const module = moduleOf("resnet-cat", right);
    expect(checkedService("f", "resnet-cat", module)).toBe(module.default);
  });

  test.each<[string, object, string]>([
    [
      "a misspelt setting",
      { ...right, treshold: 1 },
      `Unknown key "treshold" in settings: did you mean "threshold"?`,
    ],
    ["a missing one", { model: "m", question: "?" }, "for settings.group but received undefined"],
    ["one of another type", { ...right, group: 5 }, "for settings.group but received 5 of type number"],
    [
      "one out of range",
      { ...right, threshold: 1.5 },
      "a number from 0 to 1 for settings.threshold but received 1.5",
    ],
    [
      "a part of a batch",
      { ...right, batching: { maxBatchSize: 0.5 } },
      "for settings.batching.maxBatchSize",
    ],
    [
      "a queue shorter than a batch",
      { ...right, batching: { maxBatchSize: 8, maxQueueSize: 4 } },
      "a maxQueueSize of at least maxBatchSize for settings.batching",
    ],
    [
      "a misspelt one deep inside",
      { ...right, batching: { maxBatchsize: 8 } },
      `"maxBatchsize" in settings.batching: did you mean "maxBatchSize"?`,
    ],
    [
      "a model that is a path",
      { ...right, model: "../pets" },
      "the name of a folder in modelsDir for settings.model",
    ],
    ["no question", { ...right, question: " " }, "a question for settings.question"],
    ["what its mixin has taken away", { ...right, ask: {} }, `Unknown key "ask" in settings`],
  ])("with %s is refused, and named", (_, settings, message) => {
    const text = told("resnet-cat", moduleOf("resnet-cat", settings));
    expect(text).toContain("services/x.service.ts cannot be started:");
    expect(text).toContain(message);
  });

  test("tells all its mistakes at once", () => {
    const text = told("resnet-fox", moduleOf("resnet-cat", { model: "", grup: "x" }));
    for (const part of [`"resnet-fox", as the file`, "settings.model", "settings.question", `"grup"`]) {
      expect(text).toContain(part);
    }
  });

  test("that was copied and kept the old name is refused", () => {
    expect(told("mushroom", moduleOf("resnet-cat", right))).toContain(
      `Expected "mushroom", as the file, for name but received "resnet-cat"`,
    );
  });

  test.each(["gateway", "dispatcher"])("may not be called %s unless that is its role", (name) => {
    const taken = `"${name}" is the name of another service`;
    expect(told(name, moduleOf(name, right))).toContain(taken);
    expect(told(name, { default: defineService()({ name }) })).toContain(taken);
    expect(told(name, { default: defineService()({ name, deploy: { role: name as "gateway" } }) })).toBe(
      "nothing",
    );
  });

  test.each<[ServiceSchema, object, string]>([
    [gateway, { maxImage: 16 }, `Unknown key "maxImage" in settings.http: did you mean "maxImages"?`],
    [
      gateway,
      { maxBufferedBytes: 1000 },
      "a maxBufferedBytes of at least maxImageBytes, maxInputBytes and maxVideoBytes for settings.http",
    ],
    [gateway, { maxImages: undefined }, "for settings.http.maxImages but received undefined"],
    [gateway, { trustedProxies: ["10.0.0.0/99"] }, "for settings.http.trustedProxies.0"],
  ])("of the gateway is checked, too: %#", (schema, http, message) => {
    const given = schema.settings as { readonly http: object };
    const settings = { ...given, http: { ...given.http, ...http } };
    expect(told(schema.name, { default: { ...schema, settings } })).toContain(message);
    expect(told(schema.name, { default: schema })).toBe("nothing");
  });

  test.each<[object, string]>([
    [{ maxPixel: 1 }, `Unknown key "maxPixel" in settings: did you mean "maxPixels"?`],
    [{ maxInFlight: 0 }, "a whole number of at least 1 for settings.maxInFlight but received 0"],
    [{ cache: { ttlMs: 5 } }, "for settings.cache.maxEntries but received undefined"],
  ])("of the dispatcher is checked, too: %j", (wrong, message) => {
    const settings = { ...dispatcher.settings, ...wrong };
    expect(told("dispatcher", { default: { ...dispatcher, settings } })).toContain(message);
    expect(told("dispatcher", { default: dispatcher })).toBe("nothing");
  });

  test("may not be a model that no address can name", () => {
    expect(told("My_Model", moduleOf("My_Model", right))).toContain("for name");
  });

  test.each([{}, { default: 5 }, { default: {} }])("without a service in it is refused: %j", (module) => {
    expect(told("x", module)).toContain("expected a default export made by defineService");
  });
});
