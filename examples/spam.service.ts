import { resolve } from "node:path";
import { defineService } from "../lib/define.ts";
import { Model } from "../mixins/model.mixin.ts";

/** A text model: a kind of input, and a task, of its own choice. */
export default defineService()({
  name: "spam",
  mixins: [Model],
  settings: {
    model: "spam-sms",
    ask: { group: "spam", threshold: 0.5 },
    question: "Is it spam?",
    modelsDir: resolve(import.meta.dirname, "models"),
  },
});
