import { modelOn } from "./model.ts";

/** A model that two of the suite's images kill. */
export default modelOn("fragile", { name: "fragile", question: "Does it survive?" });
