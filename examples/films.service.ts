import { resolve } from "node:path";
import { defineService } from "../lib/define.ts";
import { Model } from "../mixins/model.mixin.ts";

/** A recommender: ranks items for somebody, from what they liked. */
export default defineService()({
  name: "films",
  mixins: [Model],
  settings: {
    model: "films",
    ask: { limit: 10 },
    question: "Which films would they like?",
    modelsDir: resolve(import.meta.dirname, "models"),
  },
});
