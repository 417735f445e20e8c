import { z } from "zod";
import { defineMixin, defineService } from "../../../lib/define.ts";
import { ImageClassifier } from "../../../mixins/image-classifier.mixin.ts";
import { Model } from "../../../mixins/model.mixin.ts";

const define = defineService();
const own = z.strictObject({ size: z.number() });
const given = { model: "m", question: "?" };

/** What the compiler must refuse: each line fails the type check where it stops being a mistake. */
const refused = [
  // @ts-expect-error a misspelt setting
  define({ name: "x", mixins: [ImageClassifier], settings: { ...given, group: "g", tresh: 1 } }),
  // @ts-expect-error a missing one
  define({ name: "x", mixins: [ImageClassifier], settings: given }),
  // @ts-expect-error one of another type
  define({ name: "x", mixins: [ImageClassifier], settings: { ...given, group: 1 } }),
  // @ts-expect-error none at all
  define({ name: "x", mixins: [Model] }),
  // @ts-expect-error a setting of the mixin below, which this one has taken away
  define({ name: "x", mixins: [ImageClassifier], settings: { ...given, group: "g", ask: 1 } }),
  // @ts-expect-error a misspelt setting of a service that declares its own
  define({ name: "x", settingsSchema: own, settings: { size: 1, sise: 2 } }),
  // @ts-expect-error a missing one
  define({ name: "x", settingsSchema: own, settings: {} }),
  // @ts-expect-error no name
  define({ mixins: [Model], settings: given }),
];

const settings = z.strictObject({
  size: z.number().default(3),
  colour: z.string(),
  inner: z.strictObject({ depth: z.number().default(1) }).prefault({}),
});

describe("defineService", () => {
  test("returns the schema as it is: settings are checked by the compiler, and again at the start", () => {
    expect(refused[0]).toMatchObject({ name: "x", settings: { tresh: 1 } });
  });
});

describe("defineMixin", () => {
  test("gives services the defaults of its settings, and leaves out what they must give", () => {
    const mixin = defineMixin()({ settings });
    expect(mixin["settings"]).toEqual({ size: 3, inner: { depth: 1 } });
    expect(mixin.settingsSchema).toBe(settings);
  });

  test("types what its handlers read", () => {
    const mixin = defineMixin<{ total: number }>()({
      settings,
      created() {
        this.total = this.settings.size + this.settings.inner.depth;
      },
    });
    expect(mixin).toHaveProperty("created");
  });
});
